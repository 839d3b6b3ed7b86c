"""Writes a GGUF file's weights in f32 and in bf16: python convert.py IN.gguf F32.gguf BF16.gguf

Norms stay f32 in both, as llama.cpp wants them.
"""

import sys

from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, quants
from gguf import GGMLQuantizationType as Q

KINDS = [(Q.F32, LlamaFileType.ALL_F32), (Q.BF16, LlamaFileType.MOSTLY_BF16)]


def convert(reader, out, kind, file_type):
    writer = GGUFWriter(out, reader.fields["general.architecture"].contents())
    writer.add_file_type(file_type)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        array = field.types[0] == GGUFValueType.ARRAY
        writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if array else None)
    for tensor in reader.tensors:
        values = quants.dequantize(tensor.data, tensor.tensor_type)
        this = kind if values.ndim == 2 else Q.F32
        writer.add_tensor(tensor.name, quants.quantize(values, this), raw_dtype=this)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()


def main():
    for out, (kind, file_type) in zip(sys.argv[2:4], KINDS, strict=True):
        convert(GGUFReader(sys.argv[1]), out, kind, file_type)


main()
