#!/usr/bin/env bash
# `slipway serve` with ONNX Runtime and TensorFlow: models made by both libraries, answers held against theirs.
# Installs them once, in the cache folder (some 2 GB). Budget: 5 minutes after that.
set -euo pipefail
bin=$(readlink -f "${1:?usage: run.sh PATH_OF_SLIPWAY [pytest arguments]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
folder=$cache/engines
stamp=$(cat "$here"/requirements*.txt <(python3 --version) | sha256sum | cut -c1-16)
if [ "$(cat "$folder/.stamp" 2>/dev/null)" != "$stamp" ]; then
  echo "conformance: installing ONNX Runtime and TensorFlow"
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements-bare.txt"
  echo "$stamp" >"$folder/.stamp"
fi
# The server finds the libraries beside the first python3 on its path.
export SLIPWAY_BIN=$bin PATH=$folder/bin:$PATH TF_CPP_MIN_LOG_LEVEL=2
for file in "$here"/test_*.py; do
  "$folder/bin/python" -m pytest -q -p no:cacheprovider --rootdir "$here" "$file" "$@"
done
