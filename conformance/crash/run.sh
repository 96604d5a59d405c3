#!/usr/bin/env bash
# kill -9 at random points: as the caller, and as uid 1000 when the caller is root. Budget: 10 minutes.
set -euo pipefail
bin=$(readlink -f "${1:?usage: run.sh PATH_OF_SLIPWAY}")
here=$(cd "$(dirname "$0")" && pwd)
seed=${CRASH_SEED:-$RANDOM}
work=$(mktemp -d /tmp/slipway-crash.XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
# Another user cannot look into the builder's home: it gets copies.
cp "$bin" "$work/slipway"
cp "$here/crash.py" "$work/crash.py"
python=$(command -v /usr/bin/python3 || command -v python3)
echo "crash: as uid $(id -u), seed $seed"
"$python" "$work/crash.py" "$work/slipway" "$work/own" "$seed"
if [ "$(id -u)" = 0 ]; then
  install -d -o 1000 -g 1000 "$work/user"
  echo "crash: as uid 1000, seed $seed"
  setpriv --reuid=1000 --regid=1000 --clear-groups env HOME="$work/user" "$python" "$work/crash.py" "$work/slipway" "$work/user/data" "$seed"
fi
# The test build with the features of the whole workspace: after `make test` nothing is compiled again.
echo "power cuts under the store, seed $seed"
cd "$here/../.." && CRASH_SEED=$seed cargo test -q --locked --workspace --test power_cut
