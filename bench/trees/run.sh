#!/usr/bin/env bash
# The rows `trees` of `make bench`: ensembles in process beside ONNX Runtime, lleaves and LightGBM. Peers and models are
# made once (pip, and some minutes of training and of lleaves' compiler) and kept in the cache.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
python=$cache/trees/bin/python
(cd "$here/../.." && cargo build --release --locked -q -p models --examples)
examples=${CARGO_TARGET_DIR:-$here/../../target}/release/examples
if ! "$python" -c 'import onnxruntime, skl2onnx, lightgbm, sklearn' 2>/dev/null; then
    python3 -m venv "$cache/trees"
    "$cache/trees/bin/pip" install -q onnxruntime skl2onnx lightgbm scikit-learn joblib
    # lleaves 1.3 asks for a part of LLVM's interface that llvmlite 0.45 no longer has.
    "$cache/trees/bin/pip" install -q lleaves 'llvmlite<0.45' || echo "lleaves cannot be installed here: its column is left out"
fi
folder=$cache/trees/models
[ -e "$folder/made.json" ] || "$python" "$here/make.py" "$folder"
exec "$python" "$here/run.py" --bench "$examples/bench_trees" --folder "$folder" "$@"
