#!/usr/bin/env bash
# The article's journey on real parts: a cluster, a pipeline that trains and registers, a served model, a prediction.
# Every line that starts with `$` is the command that ran; nothing else happens behind it. Run again it works again.
set -euo pipefail
bin=${1:?usage: demo.sh PATH_OF_SLIPWAY}
here=$(cd "$(dirname "$0")/.." && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
data=${SLIPWAY_DEMO_DATA:-$cache/demo/data}
work=$cache/demo/work
python=$cache/python/bin
run_name=${SLIPWAY_DEMO_RUN:-iris-run-001}
mkdir -p "$work" "$(dirname "$data")"
export PATH="$(dirname "$bin"):$PATH"

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold= dim= plain=; fi
stages=()
stage() { # stage NAME COMMAND...: shows the command, runs it, keeps its time.
  local name=$1 started=${EPOCHREALTIME/./} ; shift
  printf '\n%s%s%s\n%s$ %s%s\n' "$bold" "$name" "$plain" "$dim" "$*" "$plain"
  "$@"
  stages+=("$(printf '%7d ms  %s' $(((${EPOCHREALTIME/./} - started) / 1000)) "$name")")
}

stage "A cluster comes up" slipway up --data "$data" --detach --no-merge
# What the image python:3.9-slim stands for here: this machine's Python with scikit-learn and kfp, and the article's script.
stage "The training image" slipway images add python:3.9-slim --data "$data" --from host \
  --copy "$here/examples/iris/train.py:/app/train.py" --path-prepend "$python"
cd "$work"
stage "The pipeline is compiled" "$python/python" "$here/examples/iris/pipeline_kfp2.py"
# No cache: the demo shows the training itself, also when train.py was changed.
stage "Training and registering" slipway kfp submit --data "$data" --pipeline-file "$work/iris_pipeline.yaml" \
  --run-name "$run_name" --wait --no-cache

eval "$(slipway env --data "$data")"
accuracy=$(slipway logs "$run_name/train-model" --data "$data" | grep '^Accuracy' | tail -1)
read -r version run_id < <("$python/python" "$here/scripts/latest_version.py" iris)

stage "The model is served" slipway deploy pytorch-iris "models:/iris/$version" --data "$data"
url=$(slipway predict pytorch-iris --url --data "$data")
SERVICE_IP=${url#http://}
export SERVICE_IP=${SERVICE_IP%:*}
predict() { curl() { command curl --silent --show-error --fail-with-body "$@"; }; . "$here/examples/iris/predict.sh"; }
answer_file=$work/answer.json
ask() { predict >"$answer_file"; cat "$answer_file"; echo; }
stage "A prediction (examples/iris/predict.sh, SERVICE_IP=$SERVICE_IP)" ask

printf '\n%sDone.%s %s; model iris, version %s of run %s\n' "$bold" "$plain" "$accuracy" "$version" "$run_id"
printf '%s\n' "${stages[@]}"
cat <<END

Look around:
  export PATH="$(dirname "$bin"):\$PATH"; eval "\$(slipway env --data $data)"
  kubectl get pods,svc,isvc,workflows -A     what runs
  slipway logs $run_name/train-model        what the training said
  slipway predict pytorch-iris 6.7,3.0,5.2,2.3
  slipway down --data $data
END
grep -q '"predictions"' "$answer_file"
