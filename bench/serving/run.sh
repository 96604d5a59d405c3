#!/usr/bin/env bash
# The serving rows of `make bench`: the released binary beside echoes, KServe's Python server and MLServer.
# The peers' environments are made once (pip); where that fails the peer is left out and said to be.
# BENCH=serving,many,open,batching,soak chooses rows; `soak` is 15 minutes, and where nothing is chosen one minute.
# Rows go on where a number is not what it is to be. The exit status says so at the end of counts and memory; times are told.
set -euo pipefail
bin=$(readlink -f "${1:?usage: run.sh PATH_OF_SLIPWAY}")
here=$(cd "$(dirname "$0")" && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
rows=${BENCH:-serving,many,open,batching,short-soak}
missed=0
asked() { case ",$rows," in *",$1,"*) ;; *) return 1 ;; esac; }
row() { # row NAME ARGUMENTS...: runs NAME.py.
    local name=$1
    shift
    python3 "$here/$name.py" --slipway "$bin" "$@" || { echo "$name: not all numbers are what they are to be"; missed=1; }
}
if asked many; then row many; fi
[ "$rows" != many ] || exit $missed
(cd "$here/../.." && cargo build --release --locked -q -p infer -p loadgen --examples)
examples=${CARGO_TARGET_DIR:-$here/../../target}/release/examples
if asked serving; then
    peers=()
    peer() { # peer NAME IMPORTS PACKAGES...: adds --NAME PYTHON where the packages can be had.
        local name=$1 imports=$2 python=$cache/$1/bin/python
        shift 2
        if ! "$python" -c "import $imports" 2>/dev/null; then
            python3 -m venv "$cache/$name" && "$cache/$name/bin/pip" install -q --disable-pip-version-check "$@" || true
        fi
        if "$python" -c "import $imports" 2>/dev/null; then
            "$python" -c 'import importlib.metadata as m, sys; print(*("%s %s" % (n, m.version(n)) for n in sys.argv[1:]), sep=", ")' "$@"
            peers+=("--$name" "$python")
        else
            echo "$name cannot be installed here: its rows are left out"
        fi
    }
    peer kserve kserve,sklearn,joblib kserve scikit-learn joblib
    peer mlserver mlserver,mlserver_sklearn mlserver mlserver-sklearn
    row run --examples "$examples" --python "$cache/python/bin/python" "${peers[@]}"
    row observed --examples "$examples"
fi
numpy=()
for python in "$cache/python/bin/python" "$cache/kserve/bin/python" python3; do
    if "$python" -c 'import numpy' 2>/dev/null; then
        numpy=(--python "$python")
        break
    fi
done
if asked open; then row open --examples "$examples" "${numpy[@]}"; fi
if asked short-soak; then row soak --examples "$examples" --minutes 1 --restarts 2; fi
if asked soak; then row soak --examples "$examples"; fi
if asked batching && [ ${#numpy[@]} -gt 0 ]; then
    row batching --quick --rounds 1 --examples "$examples" "${numpy[@]}"
elif asked batching; then
    echo "no Python here has numpy: the row batching is left out"
fi
exit $missed
