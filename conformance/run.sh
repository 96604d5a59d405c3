#!/usr/bin/env bash
# Real clients against the binary: kubectl (the machine's and upstream's 1.34), kfp, mlflow, joblib, clients of
# inference protocols, native libraries. Budget: 25 minutes.
set -euo pipefail
bin=$(readlink -f "${1:?usage: run.sh PATH_OF_SLIPWAY [pytest arguments]}")
shift
here=$(cd "$(dirname "$0")" && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
# Two kubectls of upstream's, each built once a machine from its Go module; the machine's own stands in for 1.32 where it is one.
kubectls=
kubectl_of() { # kubectl_of MINOR PATCH: adds a kubectl 1.MINOR to the list.
  local built=$cache/kubectl-1.$1
  if [[ $(kubectl version --client 2>/dev/null) == *v1.$1.* ]]; then
    kubectls+=:$(command -v kubectl)
    return
  fi
  if [ ! -x "$built" ] && ! command -v go >/dev/null; then
    echo "conformance: kubectl 1.$1 is left out: neither it nor Go to build it is on this machine" >&2
    return
  fi
  if [ ! -x "$built" ]; then
    echo "conformance: building kubectl 1.$1"
    (cd "$here/kubectl/v1.$1" && go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.$1.$2" -o "$built" .)
  fi
  kubectls+=:$built
}
kubectl_of 32 4
kubectl_of 34 2
[ -n "$kubectls" ] || { echo "conformance: please install Go or kubectl" >&2; exit 1; }
export SLIPWAY_BIN=$bin SLIPWAY_PYTHON=$cache/python/bin SLIPWAY_KUBECTLS=${kubectls#:}
"$cache/python/bin/python" -m pytest -q -p no:cacheprovider --rootdir "$here" --ignore "$here/serving" --ignore "$here/engines" --ignore "$here/onnx" "$here" "$@"
"$here/onnx/run.sh" "$bin" "$@"
"$here/serving/run.sh" "$bin" "$@"
exec "$here/engines/run.sh" "$bin" "$@"
