"""Prints the quickstart's table. Arguments: NAME=FILE.gguf, with FILE.gguf.json and FILE.gguf.speed.json beside it."""
import json
import os
import sys

HEAD = ["type", "file MB", "bpw", "memory MB", "perplexity", "mean KL", "top-1 %", "prefill tok/s", "decode tok/s"]
rows = []
for arg in sys.argv[1:]:
    name, path = arg.split("=", 1)
    e = json.load(open(path + ".json"))
    s = json.load(open(path + ".speed.json"))
    kl = f"{e['kl_mean']:.5f} ± {e['kl_se']:.5f}" if "kl_mean" in e else "0 (source)"
    top1 = f"{100 * e['top1_agreement']:.1f}" if "top1_agreement" in e else "100"
    rows.append([name, f"{os.path.getsize(path) / 1e6:.1f}", f"{e['bpw']:.3f}", f"{s['peak_memory_bytes'] / 1e6:.0f}",
                 f"{e['perplexity']:.2f} ± {e['perplexity_se']:.2f}", kl, top1,
                 f"{s['prefill_tokens_per_s']:.0f}", f"{s['decode_tokens_per_s']:.1f}"])
width = [max(len(r[i]) for r in [HEAD] + rows) for i in range(len(HEAD))]
line = lambda r: "| " + " | ".join(c.ljust(w) for c, w in zip(r, width)) + " |"
print(line(HEAD))
print("|" + "|".join("-" * (w + 2) for w in width) + "|")
for r in rows:
    print(line(r))
