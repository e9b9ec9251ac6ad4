"""Llama and Gemma 3 as plain PyTorch modules, from a Hugging Face folder: what training is compared with."""
import json
import pathlib

import torch
import torch.nn.functional as F
from torch import nn

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I64": torch.int64, "I32": torch.int32}


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    out = {}
    for name, info in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        raw = bytearray(data[8 + size + begin:8 + size + end])
        out[name] = torch.frombuffer(raw, dtype=DTYPES[info["dtype"]]).reshape(info["shape"])
    return out


class Norm(nn.Module):
    def __init__(self, size, eps, one_more):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps, self.one_more = eps, one_more

    def forward(self, x):
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return x * (1 + self.weight if self.one_more else self.weight)


class Attention(nn.Module):
    def __init__(self, c, index):
        super().__init__()
        self.heads, self.kv_heads, self.size = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        wide, kv, n = self.heads * self.size, self.kv_heads * self.size, c["hidden_size"]
        self.q_proj, self.k_proj = nn.Linear(n, wide, bias=False), nn.Linear(n, kv, bias=False)
        self.v_proj, self.o_proj = nn.Linear(n, kv, bias=False), nn.Linear(wide, n, bias=False)
        self.gemma = c["model_type"] == "gemma3_text"
        rope = c.get("rope_parameters") or {"rope_theta": c.get("rope_theta", 10000.0)}
        self.window, self.scale = None, self.size**-0.5
        if self.gemma:
            self.q_norm, self.k_norm = (Norm(self.size, c["rms_norm_eps"], True) for _ in range(2))
            self.scale = c["query_pre_attn_scalar"]**-0.5
            rope = rope[c["layer_types"][index]]
            if c["layer_types"][index] == "sliding_attention":
                self.window = c["sliding_window"]
        self.theta = rope["rope_theta"]

    def rotate(self, x):
        half = self.size // 2
        steps = self.theta**(-torch.arange(half, dtype=torch.float64) * 2 / self.size)
        angles = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * steps
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, x):
        b, t, _ = x.shape

        def heads(y, count):
            return y.view(b, t, count, self.size).transpose(1, 2)

        q, k = heads(self.q_proj(x), self.heads), heads(self.k_proj(x), self.kv_heads)
        v = heads(self.v_proj(x), self.kv_heads)
        if self.gemma:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = self.rotate(q), self.rotate(k)
        repeat = self.heads // self.kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        if self.window is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        else:
            at = torch.arange(t)
            seen = (at[:, None] >= at) & (at[:, None] - at < self.window)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=self.scale)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        n, ff = c["hidden_size"], c["intermediate_size"]
        self.gate_proj, self.up_proj = nn.Linear(n, ff, bias=False), nn.Linear(n, ff, bias=False)
        self.down_proj = nn.Linear(ff, n, bias=False)
        self.gemma = c["model_type"] == "gemma3_text"

    def forward(self, x):
        g = self.gate_proj(x)
        g = F.gelu(g, approximate="tanh") if self.gemma else F.silu(g)
        return self.down_proj(g * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c, index):
        super().__init__()
        self.gemma = c["model_type"] == "gemma3_text"

        def norm():
            return Norm(c["hidden_size"], c["rms_norm_eps"], self.gemma)

        self.input_layernorm, self.post_attention_layernorm = norm(), norm()
        if self.gemma:
            self.pre_feedforward_layernorm, self.post_feedforward_layernorm = norm(), norm()
        self.self_attn, self.mlp = Attention(c, index), MLP(c)

    def forward(self, x):
        y = self.self_attn(self.input_layernorm(x))
        if self.gemma:
            x = x + self.post_attention_layernorm(y)
            return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c["num_hidden_layers"]))
        self.norm = Norm(c["hidden_size"], c["rms_norm_eps"], c["model_type"] == "gemma3_text")


class Model(nn.Module):
    """Tied heads only."""

    def __init__(self, config):
        super().__init__()
        config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
        assert config["tie_word_embeddings"] and config["model_type"] in ("llama", "gemma3_text")
        self.scale = config["hidden_size"]**0.5 if config["model_type"] == "gemma3_text" else 1.0
        self.model = Body(config)

    @classmethod
    def load(cls, folder, dtype=torch.float32):
        folder = pathlib.Path(folder)
        model = cls(json.loads((folder / "config.json").read_text()))
        tensors = {}
        for file in sorted(folder.glob("model*.safetensors")):
            tensors.update(read_safetensors(file))
        tensors.pop("lm_head.weight", None)
        model.load_state_dict({n: t.float() for n, t in tensors.items()})
        return model.to(dtype)

    def forward(self, tokens):  # [b, t] -> [b, t, n_vocab]
        x = self.model.embed_tokens(tokens) * self.scale
        for layer in self.model.layers:
            x = layer(x)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)


def loss_of(model, tokens):
    """Mean next-token cross-entropy."""
    logits = model(tokens)[:, :-1]
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
