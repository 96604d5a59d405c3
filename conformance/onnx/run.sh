#!/usr/bin/env bash
# `slipway model convert` and networks in the server's own engine against ONNX Runtime. Installs it once, in the cache folder.
# Budget: 3 minutes after that.
set -euo pipefail
bin=$(readlink -f "${1:?usage: run.sh PATH_OF_SLIPWAY [pytest arguments]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
folder=$cache/onnx
stamp=$(cat "$here/requirements.txt" <(python3 --version) | sha256sum | cut -c1-16)
if [ "$(cat "$folder/.stamp" 2>/dev/null)" != "$stamp" ]; then
  echo "conformance: installing ONNX Runtime"
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  echo "$stamp" >"$folder/.stamp"
fi
SLIPWAY_BIN=$bin "$folder/bin/python" -m pytest -q -p no:cacheprovider --rootdir "$here" "$here" "$@"
