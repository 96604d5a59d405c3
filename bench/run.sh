#!/usr/bin/env bash
# Side by side with peers in one run; prints a row a measurement with the ratio. Budget: 20 minutes.
# BENCH=start,jobs,creates,step,serving,many,open,batching,soak,trees chooses rows.
set -euo pipefail
bin=$(readlink -f "${1:?usage: run.sh PATH_OF_SLIPWAY}")
here=$(cd "$(dirname "$0")" && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
rows=${BENCH:-start,jobs,creates,step,serving,trees}
export SLIPWAY_BIN=$bin SLIPWAY_PYTHON=$cache/python/bin
"$cache/python/bin/python" "$here/platform.py" "$rows"
missed=0
case ",$rows," in *,serving,* | *,many,* | *,open,* | *,batching,* | *,soak,*) "$here/serving/run.sh" "$bin" || missed=1 ;; esac
case ",$rows," in *,trees,*) "$here/trees/run.sh" ;; esac
exit $missed
