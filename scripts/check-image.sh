#!/usr/bin/env bash
# Run one image, and ask it what it is for: scripts/check-image.sh generate|tokenize|ui ARCH IMAGE
#
# As it runs on a cluster: with a root that cannot be written, and no privileges. An image of another architecture
# runs under qemu's user emulation, as the processor of the oldest machine that is meant: a Pi 4's for arm64.
set -euo pipefail

service=$1 arch=$2 image=$3
docker=${DOCKER:-docker}
fail() { printf 'piBLOOM: %s\n' "$*" >&2; exit 1; }
case $(uname -m) in x86_64) native=amd64 ;; aarch64 | arm64) native=arm64 ;; *) native= ;; esac

container=
cleanup() { [ -z "$container" ] || "$docker" rm --force "$container" >/dev/null 2>&1 || true; }
trap cleanup EXIT

emulated=()
if [ "$arch" != "$native" ]; then
  case $arch in arm64) machine=aarch64 cpu=cortex-a72 ;; amd64) machine=x86_64 cpu=max ;; esac
  qemu=$(command -v "qemu-$machine-static") \
    || fail "an image for $arch runs here only under emulation; install qemu-user-static, or build with --no-check"
  # Mounted and named, rather than registered with the kernel, which would take root.
  entry=$("$docker" image inspect --format '{{json .Config.Entrypoint}}' "$image" | tr -d '[]"' | tr , ' ')
  read -ra command <<<"$entry"
  container=$("$docker" create --platform "linux/$arch" "$image")
  for place in /usr/local/bin /usr/bin; do
    if "$docker" cp "$container:$place/${command[0]}" - >/dev/null 2>&1; then command[0]=$place/${command[0]}; fi
  done
  cleanup
  emulated=(--volume "$qemu:/qemu:ro" --entrypoint /qemu)
  command=(-cpu "$cpu" "${command[@]}")
fi

container=$("$docker" run --detach --platform "linux/$arch" --read-only --cap-drop ALL --security-opt no-new-privileges \
  --publish 127.0.0.1::8080 "${emulated[@]}" "$image" ${command[@]+"${command[@]}"})
# Empty where the container has ended already; its last words are shown below.
address=http://$("$docker" port "$container" 8080 2>/dev/null | head -n 1 || true)

readiness=/readyz
[ "$service" = ui ] && readiness=/healthz
end=$((SECONDS + 300))
while true; do
  curl -fs --noproxy '*' --max-time 5 "$address$readiness" >/dev/null 2>&1 && break
  if [ "$("$docker" inspect --format '{{.State.Running}}' "$container")" != true ] || [ $SECONDS -ge $end ]; then
    "$docker" logs "$container" 2>&1 | tail -n 10 >&2
    fail "$image does not start; its last words are above"
  fi
  sleep 0.2
done

ask() { curl -sS --noproxy '*' --max-time 120 -H 'Content-Type: application/json' --data "$1" "$address/"; }
case $service in
  generate)
    reply=$(ask '{"prompt": "Once upon a time", "max_new_tokens": 4, "temperature": 0}')
    wanted='"completion_tokens":' ;; # a model may end its text at once
  tokenize)
    reply=$(ask '{"text": "Hello"}')
    wanted='"ids":[' ;;
  ui)
    reply=$(curl -sS --noproxy '*' --max-time 60 "$address/")
    wanted='<title>piBLOOM</title>' ;;
esac
case $reply in
  *"$wanted"*) printf 'piBLOOM: %s for %s answers\n' "$service" "$arch" >&2 ;;
  *) fail "$image answers, but not with what was asked for: ${reply:0:200}" ;;
esac
