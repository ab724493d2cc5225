#!/usr/bin/env bash
# Choose versions for every dependency and write them, with the hash of every file, to requirements/.
# The hashes make two fresh machines install the same bytes, wherever they fetch them from.
set -euo pipefail
cd "$(dirname "$0")/.."

.venv/bin/python -m pip install --quiet uv
constraint=
for profile in up test; do
  extra=
  [ "$profile" = test ] && extra=test
  .venv/bin/uv pip compile pyproject.toml ${extra:+--extra "$extra"} --universal --python-version 3.11 \
    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
    --quiet ${constraint:+--constraint "$constraint"} --output-file "requirements/$profile.txt"
  constraint="requirements/$profile.txt" # what both install has the same version
done
