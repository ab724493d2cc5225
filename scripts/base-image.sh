#!/usr/bin/env bash
# Make the images that build.sh builds on, where none can be pulled: scripts/base-image.sh [ARCH…]
#
# On Debian, from the packages of the very release that runs here:
#   pibloom/base:ARCH       python3 and what it needs; no shell, no package manager
#   pibloom/builder:latest  pip and the C compilers, for this machine's architecture
# Nothing of another architecture is run: its packages are only unpacked.
set -euo pipefail

fail() { printf 'piBLOOM: %s\n' "$*" >&2; exit 1; }

native=$(dpkg --print-architecture 2>/dev/null) || fail "base images are made of Debian's packages, and this is no Debian"
docker=${DOCKER:-docker}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pibloom/base
mkdir -p "$cache"

# What libpython needs, less what no service here uses (readline, curses, databases, Sun RPC).
packages=(
  base-files libc6 libgcc-s1 libstdc++6 zlib1g libbz2-1.0 liblzma5 libffi8 libexpat1 libuuid1 libcrypt1 libssl3
  libsqlite3-0 media-types tzdata python3-minimal python3.11-minimal libpython3.11-minimal libpython3.11-stdlib
)
. /etc/os-release
[ "$VERSION_CODENAME" = bookworm ] || fail "the list of packages is Debian 12's, and this is $PRETTY_NAME"

apt_for() { # apt_for ARCH COMMAND…: apt with lists of its own, so that nothing of this machine changes
  local state=$cache/apt-$1 arch=$1
  shift
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
  : >"$state/status"
  apt-get -qq -o APT::Architecture="$arch" -o APT::Architectures::="$arch" -o Dir::State="$state" \
    -o Dir::State::status="$state/status" -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" \
    -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::sourcelist="$cache/sources.list" -o APT::Sandbox::User=root "$@"
}

sources() { # only Debian's own archives: others need not have the architecture
  local mirror security
  mirror=$(apt-cache policy base-files | grep -oE 'https?://[^ ]+' | head -n 1 || true)
  [ -n "$mirror" ] || fail "apt knows no mirror of Debian's archive that answers over HTTP"
  security=$(apt-cache policy | grep -oE "https?://[^ ]+ $VERSION_CODENAME-security/main" | head -n 1 || true)
  security=${security%% *}
  local signed="[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
  echo "deb $signed $mirror $VERSION_CODENAME main"
  echo "deb $signed $mirror $VERSION_CODENAME-updates main"
  echo "deb $signed ${security:-http://security.debian.org/debian-security} $VERSION_CODENAME-security main"
}

# load NAME ARCH ROOT: ROOT becomes the one layer of an image, as `docker save` would write it. (`docker import`
# would label it with this machine's architecture.)
load() {
  local work layer_id
  work=$(mktemp -d)
  tar --numeric-owner --owner=0 --group=0 --sort=name --mtime=@0 -C "$3" -cf "$work/layer.tar" .
  layer_id=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  cat >"$work/config.json" <<END
{"os": "linux", "architecture": "$2", "config": {"Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer_id"]}}
END
  printf '[{"Config": "config.json", "RepoTags": ["%s"], "Layers": ["layer.tar"]}]' "$1" >"$work/manifest.json"
  tar -C "$work" -c manifest.json config.json layer.tar | "$docker" load --quiet
  rm -r "$work"
}

base() { # base ARCH
  local root debs=$cache/debs-$1 deb field
  mkdir -p "$debs"
  rm -f "$debs"/*.deb
  apt_for "$1" update
  (cd "$debs" && apt_for "$1" download "${packages[@]}")
  root=$(mktemp -d)
  mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{etc,tmp,var/lib/dpkg/status.d}
  for field in bin sbin lib lib64; do ln -s "usr/$field" "$root/$field"; done
  chmod 1777 "$root/tmp"
  for deb in "$debs"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$root" \
      --exclude='./usr/share/doc/*/[!c]*' --exclude='./usr/share/man/*' --exclude='./usr/share/lintian/*' --exclude='./usr/share/bug/*'
    dpkg-deb --field "$deb" >"$root/var/lib/dpkg/status.d/$(dpkg-deb --field "$deb" Package)"
  done
  # What maintainers' scripts would have done.
  echo 'root:x:0:0:root:/root:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
pibloom:x:65532:65532:pibloom:/tmp:/sbin/nologin' >"$root/etc/passwd"
  echo 'root:x:0:
nogroup:x:65534:
pibloom:x:65532:' >"$root/etc/group"
  ln -sf /usr/share/zoneinfo/UTC "$root/etc/localtime"
  mkdir -p "$root/etc/ssl/certs"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  load "pibloom/base:$1" "$1" "$root"
  rm -r "$root"
}

builder() {
  local cross=() root
  command -v mmdebstrap >/dev/null || fail "the builder's image is made by mmdebstrap; install it: apt-get install mmdebstrap"
  case $native in
    amd64) cross=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
    arm64) cross=(gcc-x86-64-linux-gnu libc6-dev-amd64-cross) ;;
  esac
  root=$(mktemp -d)
  local list="python3,python3-pip,gcc,libc6-dev,ca-certificates"
  for package in "${cross[@]}"; do list+=,$package; done
  mmdebstrap --quiet --variant=minbase --mode="$([ "$(id -u)" = 0 ] && echo root || echo auto)" --include="$list" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$VERSION_CODENAME" - "$cache/sources.list" | tar -x -C "$root" --exclude='./dev/*'
  load pibloom/builder:latest "$native" "$root"
  rm -r "$root"
}

sources >"$cache/sources.list"
for arch in "${@:-$native}"; do base "$arch"; done
"$docker" image inspect pibloom/builder:latest >/dev/null 2>&1 || builder
