"""KL divergence of GGUF files from a reference inside llama.cpp: llama_kl.py LIBDIR WINDOWS TEXT REFERENCE.gguf FILE.gguf...

The protocol of narrow eval and llama-perplexity: windows of 512 tokens, the second half of each is scored, BOS first
where the model has one. Both models run in the prebuilt libllama of the npm package node-llama-cpp, called through
ctypes; llama.h's parameter structs are passed as they come from their default functions, so their layout is not needed.
Prints a JSON line per file: {"file", "kl_mean", "ppl", "same_top1"}.
"""
import ctypes as c
import json
import os
import sys

import numpy as np
from llama_quantize import load_llama

N_CTX = 512


class Params(c.Structure):  # larger than llama.h's: callee and caller each use its beginning
    _fields_ = [("bytes", c.c_byte * 2048)]


class Batch(c.Structure):
    _fields_ = [("n_tokens", c.c_int32), ("token", c.POINTER(c.c_int32)), ("embd", c.c_void_p),
                ("pos", c.POINTER(c.c_int32)), ("n_seq_id", c.POINTER(c.c_int32)),
                ("seq_id", c.POINTER(c.POINTER(c.c_int32))), ("logits", c.POINTER(c.c_int8))]


def load(folder):
    ggml, lib = load_llama(folder)
    ggml.ggml_backend_load_all_from_path.argtypes = [c.c_char_p]
    ggml.ggml_backend_load_all_from_path(folder.encode())
    for name, result, arguments in (
            ("llama_model_default_params", Params, []), ("llama_context_default_params", Params, []),
            ("llama_model_load_from_file", c.c_void_p, [c.c_char_p, Params]),
            ("llama_init_from_model", c.c_void_p, [c.c_void_p, Params]), ("llama_model_get_vocab", c.c_void_p, [c.c_void_p]),
            ("llama_vocab_n_tokens", c.c_int32, [c.c_void_p]), ("llama_vocab_bos", c.c_int32, [c.c_void_p]),
            ("llama_vocab_get_add_bos", c.c_bool, [c.c_void_p]),
            ("llama_tokenize", c.c_int32,
             [c.c_void_p, c.c_char_p, c.c_int32, c.POINTER(c.c_int32), c.c_int32, c.c_bool, c.c_bool]),
            ("llama_set_n_threads", None, [c.c_void_p, c.c_int32, c.c_int32]), ("llama_n_ctx", c.c_uint32, [c.c_void_p]),
            ("llama_batch_init", Batch, [c.c_int32, c.c_int32, c.c_int32]), ("llama_decode", c.c_int32, [c.c_void_p, Batch]),
            ("llama_get_memory", c.c_void_p, [c.c_void_p]), ("llama_memory_clear", None, [c.c_void_p, c.c_bool]),
            ("llama_get_logits", c.POINTER(c.c_float), [c.c_void_p])):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class Model:
    def __init__(self, lib, path):
        self.lib = lib
        self.model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.n_vocab = lib.llama_vocab_n_tokens(self.vocab)
        self.context = lib.llama_init_from_model(self.model, lib.llama_context_default_params())
        if not self.context or lib.llama_n_ctx(self.context) < N_CTX:
            sys.exit(f"llama.cpp gives {path} no context of {N_CTX} tokens")
        lib.llama_set_n_threads(self.context, os.cpu_count(), os.cpu_count())
        self.batch = lib.llama_batch_init(N_CTX, 0, 1)

    def tokens(self, text):
        data = text.encode()
        ids = (c.c_int32 * (len(data) + 2))()
        n = self.lib.llama_tokenize(self.vocab, data, len(data), ids, len(ids), False, False)
        return list(ids[:n])

    def bos(self):
        return self.lib.llama_vocab_bos(self.vocab) if self.lib.llama_vocab_get_add_bos(self.vocab) else None

    # log-probabilities [len(ids), n_vocab] in fp64
    def log_probabilities(self, ids):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i] = token, i, 1
            self.batch.seq_id[i][0], self.batch.logits[i] = 0, 1
        if status := self.lib.llama_decode(self.context, self.batch):
            sys.exit(f"llama_decode failed ({status})")
        logits = np.ctypeslib.as_array(self.lib.llama_get_logits(self.context), (len(ids), self.n_vocab))
        half = logits[len(ids) // 2:-1].astype(np.float64)
        half -= half.max(axis=1, keepdims=True)
        return half - np.log(np.exp(half).sum(axis=1, keepdims=True))


def main():
    folder, windows, text, reference_path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    lib = load(folder)
    reference = Model(lib, reference_path)
    ids = reference.tokens(open(text, encoding="utf-8").read())
    files = [(path, Model(lib, path), []) for path in sys.argv[5:]]
    for w in range(min(windows, len(ids) // N_CTX)):
        window = ids[w * N_CTX:(w + 1) * N_CTX]
        targets = np.array(window[N_CTX // 2 + 1:])
        if (bos := reference.bos()) is not None:
            window[0] = bos
        p = reference.log_probabilities(window)
        for _, model, rows in files:
            q = model.log_probabilities(window)
            kl = (np.exp(p) * (p - q)).sum(axis=1)
            nll = -q[np.arange(len(targets)), targets]
            rows += zip(kl, nll, p.argmax(axis=1) == q.argmax(axis=1))
    for path, _, rows in files:
        kl, nll, same = np.array(rows, dtype=np.float64).T
        print(json.dumps({"file": path, "kl_mean": kl.mean(), "ppl": float(np.exp(nll.mean())), "same_top1": same.mean()}),
              flush=True)


if __name__ == "__main__":
    main()
