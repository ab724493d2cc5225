#!/usr/bin/env bash
# What the Dockerfiles' build stage runs, on the builder's own architecture:
#   image.sh packages LOCK          wheels of the target, checked by their hashes, into /packages
#   image.sh native                 the engine, by the target's compiler, into /app/model/native
#   image.sh finish NAME [MODEL]    byte code of all Python in the image, and the list of what is in it
# From the environment: TARGETARCH (amd64 or arm64), and the folders /source and /base, which are the
# repository and the root of the image that the final stage begins with.
set -euo pipefail

case $TARGETARCH in
  amd64) machine=x86_64 ;;
  arm64) machine=aarch64 ;;
  *) echo "piBLOOM: there are images for amd64 and arm64, not for $TARGETARCH" >&2; exit 1 ;;
esac
# A network may have a certificate authority of its own.
if [ -s /run/secrets/certificates ]; then
  export PIP_CERT=/run/secrets/certificates SSL_CERT_FILE=/run/secrets/certificates
fi

packages() {
  platforms=
  for glibc in 36 35 34 31 28 27 24 17; do platforms="$platforms --platform manylinux_2_${glibc}_$machine"; done
  # shellcheck disable=SC2086
  python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile --target /packages \
    $platforms --platform "manylinux2014_$machine" --implementation cp --python-version 3.11 \
    --only-binary=:all: --no-deps --require-hashes -r "/source/$1"
  rm -rf /packages/bin
  find /packages -depth \( -name tests -o -name test \) -type d -exec rm -rf {} +
  find /packages -name '*.pyi' -delete
}

native() {
  if [ "$machine" = "$(uname -m)" ]; then
    CC=gcc
  else
    CC=$machine-linux-gnu-gcc
    if ! command -v "$CC" >/dev/null; then
      package=gcc-$(echo "$machine" | tr _ -)-linux-gnu
      apt-get update -qq
      DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$package" \
        "libc6-dev-$TARGETARCH-cross" >/dev/null
    fi
  fi
  export CC
  (cd /source && python3 -B -m model.native.build -o /app/model/native/libbloom.so)
  "${CC%gcc}strip" --strip-debug /app/model/native/libbloom.so 2>/dev/null || strip --strip-debug /app/model/native/libbloom.so
}

finish() {
  # A package of its own, for importlib.metadata.
  python3 -B /source/scripts/sbom.py metadata /source/pyproject.toml /app
  # A container's files cannot be written, so Python would compile all that it imports at every start. The
  # source is trusted to be what it was: nothing in an image changes.
  compile() { python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$@"; }
  for library in usr/local/lib/python3.11 usr/lib/python3.11; do # the first is the one that PATH finds
    [ ! -e "/base/$library/os.py" ] || break
  done
  [ -e "/base/$library/os.py" ] || { echo "piBLOOM: the base image has no Python 3.11" >&2; exit 1; }
  PYTHONPYCACHEPREFIX=/tmp/pycache compile -s /base -p / \
    -x '/(test|idlelib|tkinter|turtledemo|lib2to3|ensurepip|distutils|site-packages|dist-packages|pydoc_data)/' "/base/$library"
  PYTHONPYCACHEPREFIX=/pycache compile /app /packages
  cp -r /tmp/pycache/base/. /pycache/
  python3 -B /source/scripts/sbom.py list "$@" >/sbom.cdx.json
  # A checkout's files may be for its owner only; in an image another reads them.
  chmod -R a+rX /app /packages /pycache
}

"$@"
