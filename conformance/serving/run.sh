#!/usr/bin/env bash
# Real clients of inference protocols against `slipway serve`: kserve, tritonclient, tensorflow-serving-api, grpcio, curl.
# Installs them once, in the cache folder. Budget: 5 minutes after that.
set -euo pipefail
bin=$(readlink -f "${1:?usage: run.sh PATH_OF_SLIPWAY [pytest arguments]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
folder=$cache/serving
stamp=$(cat "$here"/requirements*.txt <(python3 --version) | sha256sum | cut -c1-16)
if [ "$(cat "$folder/.stamp" 2>/dev/null)" != "$stamp" ]; then
  echo "conformance: installing the clients of inference protocols"
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements-bare.txt"
  echo "$stamp" >"$folder/.stamp"
fi
# Debian's torch, for models that only torch reads; PyPI's is the size of CUDA. Without it those tests are skipped.
if ! /usr/bin/python3 -c "import torch" 2>/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "conformance: installing Debian's torch"
  apt-get install -y -qq --no-install-recommends python3-torch >/dev/null || echo "conformance: no torch to be had"
fi
export SLIPWAY_BIN=$bin
# One process for each file: the clients' messages have the same names and cannot be together in one.
for file in "$here"/test_*.py; do
  "$folder/bin/python" -m pytest -q -p no:cacheprovider --rootdir "$here" "$file" "$@"
done
