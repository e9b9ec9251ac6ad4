"""Values and gradients of fake-quantize nodes, computed by PyTorch: writes nodes.json.

Straight-through gradients by autograd itself: rounding is written as t + (round(t) - t).detach(), and outside of the
codes' range (half a step past their ends) the code is a constant. Where PyTorch has a fused node of its own
(torch._fake_quantize_learnable_per_channel_affine), its values and gradients are checked to be the same.
Made with torch 2.5.1: python make_nodes.py
"""
import json
import pathlib

import torch

torch.manual_seed(7)
WHOLE = lambda lo, hi: [float(v) for v in range(lo, hi + 1)]
IQ4_NL = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
E2M1 = [-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12]
# format: levels, elements that share a scale, columns, has a min
GRIDS = {
    "q4_0": (WHOLE(-8, 7), 32, 64, False),
    "q4_1": (WHOLE(0, 15), 32, 64, True),
    "q2_k": (WHOLE(0, 3), 16, 48, True),
    "q8_0": (WHOLE(-127, 127), 37, 37, False),
    "tq2_0": (WHOLE(-1, 1), 256, 256, False),
    "iq4_nl": (IQ4_NL, 32, 64, False),
    "mxfp4": (E2M1, 32, 64, False),
}


def nearest(levels, t):
    """As the nodes choose: to even for whole levels, else a tie takes the lower level."""
    levels = torch.tensor(levels, dtype=torch.float64)
    if torch.all(levels[1:] - levels[:-1] == 1):
        return t.clamp(levels[0], levels[-1]).round()
    middle = (levels[1:] + levels[:-1]) / 2
    return levels[torch.bucketize(t, middle)]


def rounded(levels, t):
    reach = (levels[0] - (levels[1] - levels[0]) / 2, levels[-1] + (levels[-1] - levels[-2]) / 2)
    code = nearest(levels, t.detach())
    inside = (t.detach() >= reach[0]) & (t.detach() <= reach[1])
    return torch.where(inside, t + (code - t.detach()), code)


def short(x):
    return (x * 1e4).round() / 1e4


def fp32(x):
    return x.to(torch.float32).to(torch.float64)


def listed(t):
    return t.detach().flatten().tolist()


def grid_case(name):
    levels, group, k, has_min = GRIDS[name]
    n = 2
    w = short(torch.randn(n, k, dtype=torch.float64) * 0.1)
    spread = w.view(n, k // group, group)
    half = (levels[-1] - levels[0]) / 2
    scale = fp32(spread.abs().amax(-1) * 0.7 / half)  # clips some
    scale[0, 0] *= -1 if not has_min else 1
    low = fp32(-spread.abs().amax(-1) * 0.6) if has_min else torch.zeros_like(scale)
    c = short(torch.randn(n, k, dtype=torch.float64))
    w.requires_grad_(), scale.requires_grad_(), low.requires_grad_()
    t = (w.view(n, k // group, group) - low[..., None]) / scale[..., None]
    y = (scale[..., None] * rounded(levels, t) + low[..., None]).view(n, k)
    (y * c).sum().backward()
    return {"format": name, "group": group, "n": n, "k": k, "w": listed(w), "scale": listed(scale), "min": listed(low),
            "c": listed(c), "value": listed(y), "grad_w": listed(w.grad), "grad_scale": listed(scale.grad),
            "grad_min": listed(low.grad) if has_min else []}


def affine_case(bits, mapping, scope, group, int8_engine=False):
    m, k = 2, 10
    x = short(torch.randn(m, k, dtype=torch.float64) + (0.5 if mapping != "symmetric" else 0))
    lo, hi = (0, 2**bits - 1) if mapping != "symmetric" else (1 - 2**(bits - 1), 2**(bits - 1) - 1)
    if int8_engine and mapping == "zero_point":
        lo, hi = -128, 127
    length = {"tensor": m * k, "row": k, "group": group}[scope]
    groups = x.reshape(-1, length)
    if mapping == "symmetric":
        scale = groups.abs().amax(-1) * 0.6 / hi
        offset = torch.zeros_like(scale)
    else:
        scale = (groups.amax(-1) - groups.amin(-1)) * 0.6 / (hi - lo)
        offset = groups.amin(-1) * 0.6 if mapping == "min" else (lo - groups.amin(-1) * 0.6 / scale).round().clamp(lo, hi)
    if int8_engine:  # 12 significant bits
        mantissa, exponent = torch.frexp(scale)
        scale = torch.ldexp((mantissa * 4096).ceil() / 4096, exponent)
    scale, offset = fp32(scale), fp32(offset)
    c = short(torch.randn(m, k, dtype=torch.float64))
    x.requires_grad_(), scale.requires_grad_(), offset.requires_grad_()
    s, o = scale[:, None], offset[:, None]
    xs = x.reshape(-1, length)
    levels = WHOLE(lo, hi)
    if mapping == "min":
        y = s * rounded(levels, (xs - o) / s) + o
    else:
        y = s * (rounded(levels, xs / s + o) - o)
    y = y.reshape(m, k)
    (y * c).sum().backward()
    if mapping != "min":
        own = [t.detach().float().requires_grad_() for t in (x.reshape(-1, length), scale, offset)]
        fused = torch._fake_quantize_learnable_per_channel_affine(own[0], own[1], own[2], 0, lo, hi, 1.0)
        (fused * c.reshape(-1, length).float()).sum().backward()
        torch.testing.assert_close(fused.double().reshape(m, k), y.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(own[0].grad.double().reshape(m, k), x.grad, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(own[1].grad.double(), scale.grad, rtol=1e-4, atol=1e-4)
        if mapping == "zero_point":
            torch.testing.assert_close(own[2].grad.double(), offset.grad, rtol=1e-4, atol=1e-4)
    return {"bits": bits, "mapping": mapping, "scope": scope, "group": group, "m": m, "k": k, "x": listed(x),
            "scale": listed(scale), "offset": listed(offset), "c": listed(c), "value": listed(y),
            "grad_x": listed(x.grad), "grad_scale": listed(scale.grad),
            "grad_offset": listed(offset.grad) if mapping != "symmetric" else []}


def main():
    out = {
        "grids": [grid_case(name) for name in GRIDS],
        "affine": [affine_case(bits, mapping, scope, 5) for bits in (2, 8)
                   for mapping in ("symmetric", "zero_point", "min") for scope in ("tensor", "row", "group")],
        "activations": [affine_case(8, mapping, "tensor", 0, True) for mapping in ("symmetric", "zero_point")],
    }
    rounded_off = json.loads(json.dumps(out), parse_float=lambda s: float(f"{float(s):.9g}"))
    # Inputs must stay the numbers that the results belong to.
    for cases in out:
        for a, b in zip(out[cases], rounded_off[cases]):
            for key in ("w", "x", "c", "scale", "min", "offset"):
                if key in a:
                    b[key] = a[key]
    path = pathlib.Path(__file__).with_name("nodes.json")
    path.write_text(json.dumps(rounded_off, separators=(",", ":")) + "\n")
    print(path, path.stat().st_size)


main()
