"""Writes adamw.json: ten clipped steps of torch.optim.AdamW, which tests/train/optimizer_test.cc repeats.

    python make_adamw.py > adamw.json     (torch 2.5.1)
"""
import json

import torch

torch.manual_seed(7)
shapes = {"matrix": (3, 5), "gains": (7,), "late": (4,)}
settings = {"matrix": (1.0, 0.1), "gains": (0.25, 0.0), "late": (1.0, 0.01)}  # share of the rate, weight decay
lr, max_norm, betas, eps = 3e-3, 1.5, (0.9, 0.95), 1e-8
params = {n: torch.nn.Parameter(torch.randn(s)) for n, s in shapes.items()}
optimizer = torch.optim.AdamW(
    [{"params": [params[n]], "lr": lr * scale, "weight_decay": decay} for n, (scale, decay) in settings.items()],
    betas=betas, eps=eps, foreach=False)


def flat(t):
    return [float(x) for x in t.detach().flatten()]


out = {"torch": torch.__version__, "lr": lr, "max_norm": max_norm, "beta1": betas[0], "beta2": betas[1], "eps": eps,
       "parameters": [{"name": n, "shape": list(s), "lr_scale": settings[n][0], "weight_decay": settings[n][1],
                       "start": flat(params[n])} for n, s in shapes.items()], "steps": []}
for step in range(10):
    gradients = {}
    for n, p in params.items():
        # A parameter without a gradient for some steps, as a scale has before its node is switched on.
        p.grad = None if n == "late" and step < 4 else torch.randn(p.shape) * (0.2 + 0.3 * (step % 3))
        if p.grad is not None:
            gradients[n] = flat(p.grad)
    norm = torch.nn.utils.clip_grad_norm_(params.values(), max_norm)
    optimizer.step()
    out["steps"].append({"gradients": gradients, "norm": float(norm), "after": {n: flat(p) for n, p in params.items()}})
print(json.dumps(out))
