"""Writes decoder.json: loss, gradients and ten AdamW steps of two of shared/data/tiny-models, computed by PyTorch in
fp64, which tests/train/decoder_test.cc and trainer_test.cc repeat.

    python make_decoder.py .../shared/data/tiny-models > decoder.json     (torch 2.5.1)

Of each gradient: its norm, and of its first six columns the sums over rows and the norms. Both are the same for any
order of rows, of which GGUF has another one than Hugging Face for some tensors. Of vectors the first six values.
"""
import json
import pathlib
import sys

import torch

from reference import Model, loss_of, read_safetensors

COLUMNS, STEPS, LR, DECAY, CLIP, BETAS = 6, 10, 2e-3, 0.1, 1.0, (0.9, 0.999)


def batch(vocab):
    """Two windows of 24 tokens that a test can make too."""
    i = torch.arange(48)
    return ((i * i * 31 + 7 * i + 3) % vocab).reshape(2, 24)


def described(g):
    if g.dim() == 1:
        return {"norm": g.norm().item(), "values": g[:COLUMNS].tolist()}
    columns = g[:, :COLUMNS]
    return {"norm": g.norm().item(), "sums": columns.sum(0).tolist(), "norms": columns.norm(dim=0).tolist()}


def make(folder):
    golden = read_safetensors(folder / "golden.safetensors")
    model = Model.load(folder, torch.float64)
    ids = golden["input_ids"].reshape(1, -1).long()
    error = (model(ids)[0] - golden["logits"]).abs().max().item()
    assert error < 1e-3, error
    tokens = batch(model.model.embed_tokens.num_embeddings)
    loss = loss_of(model, tokens)
    loss.backward()
    out = {"loss": loss.item(), "gradients": {n: described(p.grad) for n, p in model.named_parameters()}}
    # The same window at every step.
    groups = [{"params": [p for p in model.parameters() if (p.dim() >= 2) == matrix],
               "weight_decay": DECAY if matrix else 0.0} for matrix in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=1e-8)
    out["curve"] = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, ids)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        out["curve"].append({"loss": loss.item(), "gradient_norm": norm.item()})
    return out


models = pathlib.Path(sys.argv[1])
result = {"torch": torch.__version__, "lr": LR, "weight_decay": DECAY, "clip": CLIP, "beta1": BETAS[0],
          "beta2": BETAS[1], "models": {name: make(models / name) for name in ("llama", "gemma3")}}
print(json.dumps(result, indent=1))
