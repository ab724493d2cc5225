#!/usr/bin/env bash
# Install what `make bench` compares with, into a virtual environment of its own beside piBLOOM's.
set -euo pipefail
cd "$(dirname "$0")/.."

# Bytecode, as pip and a first start leave it. Other installers may write none, and PYTHONDONTWRITEBYTECODE
# keeps Python from it: imports would then double each start that is measured.
.venv/bin/python -m compileall -q -j 0 .venv/lib cli functions model ui >/dev/null || true

venv=.venv/bench
stamp=$venv/installed
packages=(xllamacpp==2026.10.11549 gguf ctranslate2==4.8.5)
[ "$(cat "$stamp" 2>/dev/null || true)" = "${packages[*]}" ] && exit 0
echo "piBLOOM: installing the peers to compare with (${packages[*]})" >&2
.venv/bin/python -m venv "$venv"
# torch, transformers and numpy are those of the tests.
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$site" >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/piBLOOM.pth"
"$venv/bin/python" -m pip install --disable-pip-version-check --quiet "${packages[@]}"
echo "${packages[*]}" >"$stamp"
