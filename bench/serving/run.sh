#!/usr/bin/env bash
# The serving rows of `make bench`: the released binary beside a bare axum echo and KServe's Python server.
# SLIPWAY_BENCH_KSERVE names a Python that has kserve; without it one is made once (pip), and where that fails
# the row is left out and said to be.
set -euo pipefail
bin=$(readlink -f "${1:?usage: run.sh PATH_OF_SLIPWAY}")
here=$(cd "$(dirname "$0")" && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
(cd "$here/../.." && cargo build --release --locked -q -p infer --examples)
examples=${CARGO_TARGET_DIR:-$here/../../target}/release/examples
kserve=${SLIPWAY_BENCH_KSERVE:-$cache/kserve/bin/python}
if [ ! -x "$kserve" ]; then
    python3 -m venv "$cache/kserve" && "$cache/kserve/bin/pip" install -q kserve scikit-learn joblib || true
fi
peer=()
if "$kserve" -c 'import kserve, sklearn, joblib' 2>/dev/null; then
    "$kserve" -c 'import importlib.metadata as m; print(*("%s %s" % (n, m.version(n)) for n in ("kserve", "scikit-learn")), sep=", ")'
    peer=(--kserve "$kserve")
else
    echo "kserve cannot be installed here: its row is left out"
fi
python3 "$here/run.py" --slipway "$bin" --examples "$examples" "${peer[@]}"
exec python3 "$here/observed.py" --slipway "$bin" --examples "$examples"
