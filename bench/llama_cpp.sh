#!/usr/bin/env bash
# Build llama.cpp's library and quantiser from the sources that llama-cpp-python ships, for `make bench-quality`.
# What is left in .venv/llama.cpp: a virtual environment, source/ and build/.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.3.36
place=.venv/llama.cpp
[ "$(cat "$place/built" 2>/dev/null || true)" = "$version" ] && exit 0
echo "piBLOOM: building llama.cpp (llama-cpp-python $version), which takes some minutes" >&2
.venv/bin/python -m venv "$place"
pip=("$place/bin/python" -m pip --disable-pip-version-check --quiet)
# numpy is that of the tests.
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$site" >"$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/piBLOOM.pth"
"${pip[@]}" install cmake diskcache gguf ninja
rm -rf "$place/source" "$place/build"
mkdir "$place/source"
"${pip[@]}" download --no-deps --no-binary llama-cpp-python --dest "$place/source" "llama-cpp-python==$version"
tar -xzf "$place"/source/*.tar.gz -C "$place/source" --strip-components 1
cmake=$place/bin/cmake
PATH=$PWD/$place/bin:$PATH "$cmake" -S "$place/source/vendor/llama.cpp" -B "$place/build" -G Ninja \
  -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF \
  -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DGGML_CPU_REPACK=OFF >/dev/null
PATH=$PWD/$place/bin:$PATH "$cmake" --build "$place/build" --target llama llama-quantize llama-imatrix >/dev/null
echo "$version" >"$place/built"
