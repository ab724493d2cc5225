#!/usr/bin/env bash
# Images of the three services: bake the model, build, check, push, deploy. `build.sh --help` says how.
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")"

usage() {
  cat <<'END'
Usage: build.sh [OPTIONS]

  --model MODEL       a checkpoint folder, a model.bloom, or a name on the hub, NAME or NAME@REVISION,
                      which is pulled if it is not here; the demo model without it
  --bits 8|4          bits of a weight, when a folder is baked (8)
  --arch LIST         arm64, amd64, or both with a comma (arm64)
  --tag TAG           the images' tag (the commit)
  --registry HOST:PORT
                      where images are pushed to (localhost:32000, microk8s's own)
  --push              push, and write the digests into build/deploy
  --deploy            push, apply build/deploy to the cluster, and wait until all is ready
  --with kubectl|kn   what deploys (kubectl)
  --overlay NAME      microk8s or local, of knative/overlays (microk8s)
  --base IMAGE        what the images begin with: python:3.11-slim-bookworm, or like it;
                      `debian` makes one of this machine's Debian packages, and pulls nothing
  --builder IMAGE     what compiles: python:3.11-bookworm, or like it
  --pull              pull the base images again, with the fixes made since
  --no-check          do not run the images once

Every step is skipped when it was done before, so an interrupted build goes on where it was.
Examples:
  ./build.sh                                             images of the demo model, for a Pi
  ./build.sh --model bigscience/bloomz-560m --push --registry pi1:32000
  ./build.sh --arch amd64 --overlay local --deploy       this machine's own cluster
END
}

say() { printf 'piBLOOM: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

model= bits=8 arches=arm64 tag= registry=localhost:32000 push= deploy= with=kubectl overlay=microk8s
base= builder= check=yes pull=
value() { [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value; ./build.sh --help shows them"; }
while [ $# -gt 0 ]; do
  case $1 in
    --model | --bits | --arch | --tag | --registry | --with | --overlay | --base | --builder)
      value "$@"
      case $1 in
        --model) model=$2 ;; --bits) bits=$2 ;; --arch) arches=$2 ;; --tag) tag=$2 ;;
        --registry) registry=$2 ;; --with) with=$2 ;; --overlay) overlay=$2 ;;
        --base) base=$2 ;; --builder) builder=$2 ;;
      esac
      shift ;;
    --push) push=yes ;;
    --deploy) push=yes deploy=yes ;;
    --no-check) check= ;;
    --pull) pull=yes ;;
    -h | --help) usage; exit ;;
    *) fail "there is no option $1; ./build.sh --help shows them" ;;
  esac
  shift
done
IFS=, read -ra arches <<<"$arches"
for arch in "${arches[@]}"; do
  case $arch in arm64 | amd64) ;; *) fail "images are made for arm64 and amd64, not for $arch" ;; esac
done
case $bits in 8 | 4) ;; *) fail "--bits is 8 or 4, not $bits" ;; esac
case $with in kubectl | kn) ;; *) fail "--with is kubectl or kn, not $with" ;; esac
[ -d "knative/overlays/$overlay" ] || fail "there is no knative/overlays/$overlay"
if [ -z "$tag" ]; then
  tag=$(git describe --always --dirty 2>/dev/null || echo latest)
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
services=(generate tokenize ui)
case $(uname -m) in x86_64) native=amd64 ;; aarch64 | arm64) native=arm64 ;; *) native=$(uname -m) ;; esac

# --- what builds -------------------------------------------------------------------------------------------

# docker with BuildKit, which is a plugin since version 23 and was built in before; or else podman.
find_engine() {
  local candidate builder_of_daemon
  while read -r candidate; do
    if "$candidate" buildx version >/dev/null 2>&1; then
      # The daemon's own builder, whichever is in use: others cannot see images that are only here.
      builder_of_daemon=$("$candidate" context show 2>/dev/null || echo default)
      docker=$candidate build=(env BUILDX_NO_DEFAULT_ATTESTATIONS=1 "BUILDX_BUILDER=$builder_of_daemon"
        "$candidate" buildx build --load)
      return
    fi
    case $("$candidate" version --format '{{.Client.Version}}' 2>/dev/null) in
      20.*) docker=$candidate build=(env DOCKER_BUILDKIT=1 "$candidate" build); return ;;
    esac
  done < <(type -ap docker 2>/dev/null || true)
  docker=$(command -v podman) || return 1
  build=("$docker" build --format oci)
}
find_engine || fail "neither docker with BuildKit (its plugin buildx) nor podman is here; install docker.io or podman"
if ! problem=$("$docker" info 2>&1 >/dev/null); then
  case $problem in
    *"permission denied"*) fail "you may not use docker here; add yourself to its group, or run this as root" ;;
    *daemon*) fail "docker does not answer; start it: sudo systemctl start docker" ;;
    *) say "$problem"; fail "$docker info fails with this; there are no images without it" ;;
  esac
fi

free_gb=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
[ "$free_gb" -ge 3 ] || fail "about 3 GB of disk space are needed here, and $free_gb GB are free"

# --- the model ---------------------------------------------------------------------------------------------

pibloom() {
  [ -x .venv/bin/pibloom ] || scripts/setup.sh up
  .venv/bin/pibloom "$@"
}

mkdir -p build/model build/images build/deploy
exec {lock}>build/lock
flock --nonblock "$lock" || fail "another build.sh is at work here"
if [ -z "$model" ]; then
  source=model/demo/checkpoint name=pibloom-demo
else
  case $model in /*) source=$model ;; *) source=$called_from/$model ;; esac
  if [ -e "$source" ]; then
    source=$(realpath "$source")
    name=$(basename "$source" .bloom)
  elif [[ $model =~ ^[A-Za-z0-9][^/]*/[^/]+(@.+)?$ ]]; then
    source=$(pibloom pull --if-needed "$model")
    name=${model%%@*} name=${name##*/}
  else
    fail "there is no model at $model"
  fi
fi
# What is in build/model is as good as new while it came of these files, by this code: beside each is noted
# of which. Two models of one name thus replace each other.
made_of=$({
  find -L "$source" -maxdepth 1 -type f -printf '%p %s %T@\n' | LC_ALL=C sort
  cat model/*.py model/{text,vocabulary,checkpoint,baked}/*.py model/native/{,kernels/}*.[ch]
} | sha256sum)
made_before() { [ -e "$1" ] && [ "$(cat "$1.from" 2>/dev/null)" = "$made_of" ]; }
made() { echo "$made_of" >"$1.from"; }

if [ -d "$source" ]; then
  weights=build/model/$name-w$bits.bloom
  if ! made_before "$weights"; then
    say "baking $name"
    pibloom bake "$source" -o "$weights" --bits "$bits"
    made "$weights"
  fi
else
  weights=build/model/$name.bloom
  if ! made_before "$weights" && ! [ "$source" -ef "$weights" ]; then
    ln -f "$source" "$weights" 2>/dev/null || cp -p "$source" "$weights"
    made "$weights"
  fi
fi
tokenizer=build/model/$name-tokenizer.bloom
if ! made_before "$tokenizer"; then
  pibloom bake "$source" --tokenizer-only -o "$tokenizer"
  made "$tokenizer"
fi

# An image's builder is sent the image's own model, and none of the others.
rm -rf build/images/*
send() { # send SERVICE FILE
  mkdir "build/images/$1"
  ln "$2" "build/images/$1/" 2>/dev/null || cp -p "$2" "build/images/$1/"
}
send generate "$weights"
send tokenize "$tokenizer"

# --- the images --------------------------------------------------------------------------------------------

log=build/build.log
have() { "$docker" image inspect "$1" >/dev/null 2>&1; }
bring() { # bring IMAGE ARCH…: it is here for each, or is pulled
  local image=$1 arch
  shift
  for arch; do
    { [ -z "$pull" ] && [ "$("$docker" image inspect --format '{{.Architecture}}' "$image" 2>/dev/null)" = "$arch" ]; } \
      || "$docker" pull --quiet --platform "linux/$arch" "$image" >/dev/null 2>"$log" || return 1
  done
}

if [ -z "$base" ]; then
  # Where no registry can be reached, Debian's packages can.
  base=python:3.11-slim-bookworm
  if ! { bring "$base" "${arches[@]}" && { [ -n "$builder" ] || bring python:3.11-bookworm "$native"; }; }; then
    say "$(tail -n 1 "$log")"
    say "$base cannot be pulled; making base images of Debian's packages instead"
    base=debian
  fi
elif [ -n "$pull" ] && [ "$base" != debian ]; then
  bring "$base" "${arches[@]}" || { tail -n 1 "$log" >&2; fail "$base cannot be pulled"; }
fi
if [ -n "$pull" ] && [ -n "$builder" ]; then
  bring "$builder" "$native" || { tail -n 1 "$log" >&2; fail "$builder cannot be pulled"; }
fi
if [ "$base" = debian ]; then
  missing=()
  for arch in "${arches[@]}"; do
    if [ -n "$pull" ] || ! have "pibloom/base:$arch"; then missing+=("$arch"); fi
  done
  [ -z "$pull" ] || "$docker" rmi pibloom/builder:latest >/dev/null 2>&1 || true
  if [ ${#missing[@]} -gt 0 ] || ! have pibloom/builder; then
    DOCKER=$docker scripts/base-image.sh "${missing[@]:-$native}" >/dev/null
  fi
  builder=${builder:-pibloom/builder:latest}
fi
builder=${builder:-python:3.11-bookworm}

secret=()
authorities=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ -r "$authorities" ] && secret=(--secret "id=certificates,src=$authorities")

build_image() { # build_image SERVICE ARCH
  local service=$1 arch=$2 file=functions/Dockerfile from=$base arguments=()
  [ "$base" = debian ] && from=pibloom/base:$arch
  case $service in
    generate) arguments=(--build-arg FUNCTION=generate --build-arg "MODEL=build/images/generate/${weights##*/}") ;;
    tokenize) arguments=(--build-arg FUNCTION=tokenize --build-arg "MODEL=build/images/tokenize/${tokenizer##*/}") ;;
    ui) file=ui/Dockerfile ;;
  esac
  if ! "${build[@]}" --network host "${secret[@]}" --platform "linux/$arch" --file "$file" \
    --build-arg "BUILDER=$builder" --build-arg "BASE=$from" --build-arg "VERSION=$version" \
    --build-arg "REVISION=$revision" "${arguments[@]}" --tag "$(image "$service" "$arch")" . >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    if grep -q 'no space left' "$log"; then fail "the disk is full; free a few GB and try again"; fi
    fail "the image of $service for $arch could not be built; $log has the details"
  fi
}

image() { echo "$registry/pibloom-$1:$tag-$2"; }

for arch in "${arches[@]}"; do
  for service in "${services[@]}"; do
    began=$SECONDS
    build_image "$service" "$arch"
    size=$("$docker" image inspect --format '{{.Size}}' "$(image "$service" "$arch")")
    say "$service for $arch: $((size / 1000000)) MB, $((SECONDS - began)) s"
  done
done

# --- each image answers once -------------------------------------------------------------------------------

if [ -n "$check" ]; then
  for arch in "${arches[@]}"; do
    for service in "${services[@]}"; do
      DOCKER=$docker scripts/check-image.sh "$service" "$arch" "$(image "$service" "$arch")" || exit 1
    done
  done
fi

[ -n "$push" ] || { say "done; --push brings them to a registry, --deploy to a cluster"; exit 0; }

# --- the registry ------------------------------------------------------------------------------------------

scheme=https insecure=() tls=()
speaks() { # speaks http|https: the registry answers itself, even if only to ask who is there
  case $(curl -s --max-time 10 --output /dev/null --write-out '%{http_code}' "$1://$registry/v2/") in 200 | 401) ;; *) false ;; esac
}
if speaks http; then
  scheme=http
  case $docker in
    *podman) insecure=(--tls-verify=false) tls=(--tls-verify=false) ;; # docker trusts this machine's own
    *) insecure=(--insecure) ;;
  esac
elif ! speaks https; then
  fail "no registry answers at $registry; microk8s enable registry starts one on port 32000"
fi

digest_of() { # digest_of NAME TAG: as the registry has it
  curl -fsSI --max-time 30 "$scheme://$registry/v2/$1/manifests/$2" \
    -H 'Accept: application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json' |
    tr -d '\r' | sed -n 's/^[Dd]ocker-[Cc]ontent-[Dd]igest: //p' || true
}

push_image() { # push_image SERVICE: all its architectures under one tag
  local service=$1 name=$registry/pibloom-$1:$tag arch images=()
  for arch in "${arches[@]}"; do
    "$docker" push --quiet "${tls[@]}" "$(image "$service" "$arch")" >"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "$name could not be pushed"; }
    images+=("$(image "$service" "$arch")")
  done
  if [ ${#images[@]} = 1 ]; then
    "$docker" tag "${images[0]}" "$name"
    "$docker" push --quiet "${tls[@]}" "$name" >"$log" 2>&1 || { tail -n 5 "$log" >&2; fail "$name could not be pushed"; }
  else
    "$docker" manifest rm "$name" >/dev/null 2>&1 || true
    # podman keeps lists and images under the same names; an earlier build may have had one architecture.
    case $docker in *podman) "$docker" untag "$name" "$name" >/dev/null 2>&1 || true ;; esac
    if ! "$docker" manifest create "${insecure[@]}" "$name" "${images[@]}" >"$log" 2>&1 \
      || ! "$docker" manifest push --purge "${insecure[@]}" "$name" >>"$log" 2>&1; then
      tail -n 5 "$log" >&2
      fail "$name could not be pushed"
    fi
  fi
}

kustomization=build/deploy/kustomization.yaml
{
  echo "# Written by build.sh: an overlay with the images of $tag. Deploy it again: kubectl apply -k build/deploy"
  echo "apiVersion: kustomize.config.k8s.io/v1beta1"
  echo "kind: Kustomization"
  echo "resources:"
  echo "  - ../../knative/overlays/$overlay"
  echo "images:"
} >"$kustomization.new"
for service in "${services[@]}"; do
  push_image "$service"
  digest=$(digest_of "pibloom-$service" "$tag")
  [ -n "$digest" ] || fail "the registry at $registry does not say the digest of pibloom-$service:$tag"
  say "$registry/pibloom-$service@$digest"
  printf '  - name: pibloom-%s\n    newName: %s/pibloom-%s\n    digest: %s\n' "$service" "$registry" "$service" "$digest" >>"$kustomization.new"
done
mv "$kustomization.new" "$kustomization"

[ -n "$deploy" ] || { say "pushed; deploy with: kubectl apply -k build/deploy"; exit 0; }

# --- the cluster -------------------------------------------------------------------------------------------

command -v kubectl >/dev/null || fail "kubectl is not here; on a Pi: sudo snap alias microk8s.kubectl kubectl"
kubectl version --request-timeout 10s >/dev/null 2>"$log" \
  || { tail -n 1 "$log" >&2; fail "no cluster answers; KUBECONFIG=${KUBECONFIG:-~/.kube/config} names the one that is asked"; }
kubectl get crd services.serving.knative.dev >/dev/null 2>&1 \
  || fail "the cluster has no Knative Serving; microk8s enable community && microk8s enable knative installs it"
# one SERVICE: of the manifests on standard input, the Knative service of that name
one() {
  awk -v RS='---\n' -v name="  name: $1" '
    /(^|\n)apiVersion: serving.knative.dev/ && index("\n" $0, "\n" name "\n") { printf "%s", $0 }'
}
if [ "$with" = kn ]; then
  command -v kn >/dev/null || fail "kn is not here; --with kubectl does the same"
  kubectl apply -f knative/base/namespace.yaml >/dev/null
  for service in "${services[@]}"; do
    kubectl kustomize build/deploy | one "$service" >"build/deploy/$service.yaml"
    kn service apply "$service" --namespace pibloom --filename "build/deploy/$service.yaml" --wait-timeout 1800
  done
else
  kubectl apply -k build/deploy
fi
of_service() { # of_service SERVICE JSONPATH
  kubectl get --namespace pibloom "service.serving.knative.dev/$1" -o jsonpath="$2" 2>>"$log" || true
}
# wait_ready SERVICE: half an hour, but not long for what Knative says has failed, nor for a cluster that is silent.
# Knative reports it late: what its pods complain of (a missing image, a process that ends) is reported at once.
wait_ready() {
  local service=$1 generations state=Unknown complaint reported= end=$((SECONDS + 1800)) well=$SECONDS
  while [ "$state" != True ]; do
    case $state in
      Unknown) well=$SECONDS ;;
      False) [ $((SECONDS - well)) -lt 30 ] || end=0 ;;
      *) [ $((SECONDS - well)) -lt 120 ] || fail "the cluster answers no more: $(tail -n 1 "$log")" ;;
    esac
    if [ $SECONDS -ge "$end" ]; then
      say "$service: $(of_service "$service" '{.status.conditions[?(@.type=="Ready")].message}')"
      fail "$service did not become ready; kubectl describe --namespace pibloom ksvc $service says more"
    fi
    sleep 1
    complaint=$(kubectl get pods --namespace pibloom --selector "serving.knative.dev/service=$service" \
      -o jsonpath='{.items[*].status.containerStatuses[*].state.waiting.message}' 2>>"$log" || true)
    case $reported in *"$complaint"*) ;; *) say "$service: $complaint"; reported+=$complaint ;; esac
    # One question: between two, what was said of the revision before could pass for what is said of this one.
    read -r generations state < <(of_service "$service" \
      '{.metadata.generation}={.status.observedGeneration} {.status.conditions[?(@.type=="Ready")].status}{"\n"}') || state=silent
    if [ "${generations%=*}" != "${generations#*=}" ]; then state=Unknown; fi
  done
}
say "waiting until all is ready; the first pull of a large model takes minutes"
for service in "${services[@]}"; do
  wait_ready "$service"
done
for service in "${services[@]}"; do
  printf '%-9s %s\n' "$service" "$(kubectl get --namespace pibloom "service.serving.knative.dev/$service" -o jsonpath='{.status.url}')"
done
