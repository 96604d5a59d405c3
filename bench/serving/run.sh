#!/usr/bin/env bash
# The serving rows of `make bench`: the released binary beside echoes, KServe's Python server and MLServer.
# The peers' environments are made once (pip); where that fails the peer is left out and said to be.
set -euo pipefail
bin=$(readlink -f "${1:?usage: run.sh PATH_OF_SLIPWAY}")
here=$(cd "$(dirname "$0")" && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
# BENCH=many asks for that row alone: many models in one server, no peer beside it.
case ",${BENCH:-serving,many}," in
*,many,*) python3 "$here/many.py" --slipway "$bin" || echo "many: not all numbers are what they are to be" ;;
esac
case ",${BENCH:-serving,many}," in *,serving,*) ;; *) exit 0 ;; esac
(cd "$here/../.." && cargo build --release --locked -q -p infer --examples)
examples=${CARGO_TARGET_DIR:-$here/../../target}/release/examples
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
python3 "$here/run.py" --slipway "$bin" --examples "$examples" --python "$cache/python/bin/python" "${peers[@]}"
python3 "$here/observed.py" --slipway "$bin" --examples "$examples"
for numpy in "$cache/python/bin/python" "$cache/kserve/bin/python" python3; do
    if "$numpy" -c 'import numpy' 2>/dev/null; then
        exec python3 "$here/batching.py" --slipway "$bin" --examples "$examples" --python "$numpy"
    fi
done
echo "no Python here has numpy: the row batching is left out"
