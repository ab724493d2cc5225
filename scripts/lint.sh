#!/usr/bin/env bash
# Check what no test checks (manifests are checked by tests/knative, the documentation's links by
# tests/test_docs.py): scripts/lint.sh [python|c|shell|web|docker]…   (all of them without a name)
#
# Each tool is a package of requirements/test.txt. Where a processor has no build of one (shellcheck and biome
# are packaged for x86-64 only), it is looked for in PATH, and left out with a sentence if it is not there.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=
say() { printf 'piBLOOM: %s\n' "$*" >&2; }

check() { # check WHAT TOOL ARGUMENT…
  local what=$1 tool=$2 program
  shift 2
  program=.venv/bin/$tool
  if ! [ -x "$program" ] && ! program=$(command -v "$tool"); then
    say "$what: not checked, because $tool is not installed"
    return
  fi
  "$program" "$@" || { say "$what: $tool found the faults above"; failed=yes; }
}

# Of the repository only, and nothing that was installed or built.
files() { git ls-files --cached --others --exclude-standard -- "$@"; }

check_python() {
  check "Python" ruff check --quiet .
  check "the format of Python (make format corrects it)" ruff format --quiet --check .
  check "Python's types" mypy
}

check_c() { check "C (make format corrects its format)" python -m scripts.lint_c; }

check_shell() {
  local scripts
  mapfile -t scripts < <(files '*.sh' .ci/run)
  check "shell" shellcheck "${scripts[@]}"
}

check_web() { check "CSS and JavaScript" biome lint --error-on-warnings ui/static; }

check_docker() {
  local dockerfiles
  mapfile -t dockerfiles < <(files '*Dockerfile')
  check "Dockerfiles" hadolint "${dockerfiles[@]}"
}

[ $# -gt 0 ] || set -- python c shell web docker
for kind; do
  case $kind in
    python | c | shell | web | docker) "check_$kind" ;;
    *) say "there is no check of $kind"; exit 1 ;;
  esac
done
[ -z "$failed" ]
