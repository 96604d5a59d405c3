#!/usr/bin/env bash
# Installs what building, testing and the demo need. As root it uses apt; otherwise it says what is missing.
# Python environments and tools go to the cache folder and are made once per list of requirements.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cache=${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}
mkdir -p "$cache"
exec 9>"$cache/.deps.lock"
flock 9

need=()
command -v cc >/dev/null || need+=(gcc libc6-dev)
command -v make >/dev/null || need+=(make)
command -v curl >/dev/null || need+=(curl)
command -v python3 >/dev/null || need+=(python3 python3-venv)
[ -n "$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null)" ] || need+=(postgresql)
if [ "${#need[@]}" -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "deps: installing ${need[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
  else
    echo "deps: please install: ${need[*]}   (Debian/Ubuntu: sudo apt-get install ${need[*]})" >&2
    # Only a compiler, make, curl and Python are needed for everything; PostgreSQL only for one test.
    case " ${need[*]} " in *" gcc "*|*" make "*|*" curl "*|*" python3 "*) exit 1 ;; esac
  fi
fi
if ! command -v cargo >/dev/null; then
  echo "deps: please install Rust (rustup, toolchain in rust-toolchain.toml): https://rustup.rs" >&2
  exit 1
fi

# environment NAME REQUIREMENTS_FILE: a virtual environment in the cache, remade when the list changes.
environment() {
  local name=$1 list=$2 folder="$cache/$1" stamp
  stamp=$(cat "$list" <(python3 --version) | sha256sum | cut -c1-16)
  [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && return
  echo "deps: making the Python environment $name"
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$list"
  echo "$stamp" >"$folder/.stamp"
}
environment tools "$here/scripts/requirements-tools.txt"
environment python "$here/scripts/requirements-python.txt"
