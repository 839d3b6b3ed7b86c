#!/bin/sh
# Makes what quality.py compares: prepare.sh WORK, after ../peers/build.sh WORK
#   WORK/texts/        public-domain books, as demo/texts.py fetches them (or a link to a folder that has them)
#   WORK/noisy/        SmolLM2 with 2 % noise: f32/ f32.gguf q8_0.gguf q4_0.gguf q4_k_m.gguf
#   WORK/demo/         the model that ships, likewise
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
for model in noisy demo; do
    for type in q8_0 q4_0 q4_k_m; do
        [ -f $model/$type.gguf ] && continue
        build/bin/llama-quantize $model/f32.gguf part.gguf "$(echo $type | tr a-z A-Z)" >$model/$type.log 2>&1
        mv part.gguf $model/$type.gguf
    done
done
