"""llama-quantize out of a prebuilt libllama: llama_quantize.py LIBDIR IN.gguf OUT.gguf FTYPE_ID [IMATRIX.gguf]

The shared library comes with the npm package node-llama-cpp, which has no llama-quantize program; this calls the same
function (llama_model_quantize, include/llama.h) through ctypes.
"""
import ctypes as c
import os
import sys


class Params(c.Structure):
    _fields_ = [("nthread", c.c_int32), ("ftype", c.c_int), ("output_type", c.c_int), ("embedding_type", c.c_int),
                ("allow_requantize", c.c_bool), ("quantize_output", c.c_bool), ("only_copy", c.c_bool),
                ("pure", c.c_bool), ("keep_split", c.c_bool), ("dry_run", c.c_bool), ("imatrix", c.c_void_p),
                ("overrides", c.c_void_p), ("tensor_overrides", c.c_void_p), ("prune", c.c_void_p),
                ("max_buffer", c.c_size_t), ("reserve", c.c_byte * 256)]


class Imatrix(c.Structure):
    _fields_ = [("name", c.c_char_p), ("data", c.POINTER(c.c_float)), ("size", c.c_size_t)]


def read_imatrix(path):
    """E[x^2] of every tensor, as llama-quantize reads its importance matrices; ends with a null name."""
    import gguf
    tensors = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    rows = []
    for name, counts in tensors.items():
        if not name.endswith(".counts"):
            continue
        sums = tensors[name.removesuffix(".counts") + ".in_sum2"].reshape(counts.size, -1)
        mean = [[v / n if n > 0 else 1.0 for v in row] for row, n in zip(sums.tolist(), counts.reshape(-1).tolist())]
        flat = [v for row in mean for v in row]
        rows.append((name.removesuffix(".counts").encode(), (c.c_float * len(flat))(*flat), len(flat)))
    array = (Imatrix * (len(rows) + 1))()
    for i, (name, data, size) in enumerate(rows):
        array[i] = Imatrix(name, c.cast(data, c.POINTER(c.c_float)), size)
    return array, rows


def load_llama(folder):
    """libggml and libllama of the folder, initialised."""
    find = lambda stem: os.path.join(folder, next(f for f in sorted(os.listdir(folder)) if f.startswith(stem)))
    c.CDLL(find("libggml-base"), mode=c.RTLD_GLOBAL)
    ggml = c.CDLL(find("libggml."), mode=c.RTLD_GLOBAL)
    lib = c.CDLL(find("libllama."))
    lib.llama_backend_init()
    return ggml, lib


def main():
    folder, src, dst, ftype = sys.argv[1:5]
    _, lib = load_llama(folder)
    lib.llama_model_quantize_default_params.restype = Params
    p = lib.llama_model_quantize_default_params()
    p.ftype = int(ftype)
    p.nthread = os.cpu_count()
    if len(sys.argv) > 5:
        array, rows = read_imatrix(sys.argv[5])
        p.imatrix = c.cast(array, c.c_void_p)
    lib.llama_model_quantize.argtypes = [c.c_char_p, c.c_char_p, c.c_void_p]
    sys.exit(1 if lib.llama_model_quantize(src.encode(), dst.encode(), c.byref(p)) else 0)


if __name__ == "__main__":
    main()
