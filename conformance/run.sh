#!/usr/bin/env bash
# Real clients against the binary: kubectl (the machine's and upstream's 1.34), kfp, mlflow, joblib, clients of
# inference protocols. Budget: 20 minutes.
set -euo pipefail
bin=$(readlink -f "${1:?usage: run.sh PATH_OF_SLIPWAY [pytest arguments]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
# A kubectl of upstream's, built once a machine from its Go module; without Go the machine's own must do.
newest=$cache/kubectl-1.34
if [ ! -x "$newest" ] && command -v go >/dev/null; then
  echo "conformance: building kubectl 1.34"
  (cd "$here/kubectl/v1.34" && go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.34.2" -o "$newest" .)
fi
export SLIPWAY_BIN=$bin SLIPWAY_PYTHON=$cache/python/bin SLIPWAY_KUBECTLS="$(command -v kubectl || true):$newest"
"$cache/python/bin/python" -m pytest -q -p no:cacheprovider --rootdir "$here" --ignore "$here/serving" "$here" "$@"
exec "$here/serving/run.sh" "$bin" "$@"
