#!/usr/bin/env bash
# Install what `make up`, `make test-fast` or `make test` needs: scripts/setup.sh up|test-fast|test
# Every step says what it does, is skipped when it was done, and can be interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:?usage: scripts/setup.sh up|test-fast|test}
venv=.venv
log=$venv/setup.log
case $profile in
  up) needed_gb=1 size="about 150 MB, half a minute" ;;
  test-fast) needed_gb=1 size="about 250 MB, half a minute" ;;
  test) needed_gb=8 size="about 6 GB with torch, a few minutes" ;;
  *) echo "piBLOOM: there are the profiles up, test-fast and test, not $profile" >&2; exit 1 ;;
esac

say() { printf 'piBLOOM: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"
  else return 1; fi
}

apt_install() { # apt_install WHY PACKAGE…
  local why=$1; shift
  command -v apt-get >/dev/null || fail "$why needs the packages $*; install them and try again"
  say "installing $* ($why)"
  { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
    >>"${TMPDIR:-/tmp}/pibloom-apt.log" 2>&1 \
    || fail "could not install $*; run: sudo apt-get install $*"
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null \
      && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

if ! command -v python3 >/dev/null && ! find_python >/dev/null; then
  apt_install "piBLOOM is written in Python" python3 python3-venv
fi
if ! python=$(find_python); then
  # Ubuntu 22.04 has 3.10 as python3, and 3.11 beside it; a fresh machine has no package lists.
  as_root apt-get update >/dev/null 2>&1 || true
  if apt-cache show python3.11-venv >/dev/null 2>&1; then
    apt_install "piBLOOM needs Python 3.11 or newer" python3.11 python3.11-venv
    python=$(find_python)
  else
    fail "Python 3.11 or newer is needed, but $(python3 --version 2>&1) is what there is; install python3.11"
  fi
fi

if ! command -v "${CC:-cc}" >/dev/null; then
  apt_install "the native engine is written in C" gcc libc6-dev
fi
if [ "$profile" = test ]; then
  if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64-static >/dev/null; then
    apt_install "the tests run the engine as a Raspberry Pi would" gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
  fi
  if ! command -v clang >/dev/null; then
    apt_install "the linters compile the engine by clang too" clang
  fi
  if ! command -v chromium >/dev/null; then
    apt_install "the browser tests" chromium fonts-noto-core fonts-noto-cjk
  fi
fi

lock=requirements/$profile.txt
stamp=$venv/installed-$profile
python_version=$("$python" -c 'import sys; print(sys.version.split()[0])')
wanted() { # wanted PROFILE: what its stamp says once it is installed
  echo "$(cat "requirements/$1.txt" pyproject.toml | sha256sum | cut -d' ' -f1)-$python_version"
}
# Each profile includes all that the one before it needs.
for installed in up test-fast test; do
  [ "$installed" != "$profile" ] || is_enough=yes
  if [ -n "${is_enough:-}" ] && [ "$(cat "$venv/installed-$installed" 2>/dev/null || true)" = "$(wanted "$installed")" ]; then
    exec $venv/bin/python -m model.native.build --if-needed
  fi
done

free_gb=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
if [ "$free_gb" -lt "$needed_gb" ] && [ ! -e "$venv/lib" ]; then
  fail "$needed_gb GB of disk space are needed here, but only $free_gb GB are free"
fi

if ! [ -x $venv/bin/python ] || ! $venv/bin/python -m pip --version >/dev/null 2>&1; then
  say "making a virtual environment in $venv with $("$python" --version)"
  rm -rf $venv
  if ! "$python" -m venv $venv >/dev/null 2>&1; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    apt_install "virtual environments" "python$version-venv"
    rm -rf $venv
    "$python" -m venv $venv || fail "$python cannot make a virtual environment"
  fi
fi

say "installing the pinned packages ($size; details in $log)"
started=$SECONDS
if ! $venv/bin/python -m pip install --disable-pip-version-check --require-hashes -r "$lock" >"$log" 2>&1 \
  || ! $venv/bin/python -m pip install --disable-pip-version-check --no-deps --editable . >>"$log" 2>&1; then
  tail -n 5 "$log" >&2
  if grep -q 'No space left' "$log"; then fail "the disk is full; free about $needed_gb GB and try again"; fi
  if grep -qE 'Connection|Temporary failure|timed out' "$log"; then
    fail "the packages could not be fetched; check the network and try again: what is there is kept"
  fi
  fail "the packages could not be installed; $log has the details"
fi
$venv/bin/python -m model.native.build --if-needed
wanted "$profile" >"$stamp"
say "installed in $((SECONDS - started)) s"
