#include "train/nodes/round_to_grid.h"

#include <cmath>
#include <vector>

namespace narrow::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

template <class T>
at::Tensor rounded(const GridView& grid, const at::Tensor& w) {
  at::Tensor out = at::empty_like(w);
  grid_round<T>(grid, w.data_ptr<T>(), out.data_ptr<T>());
  return out;
}

// Where nothing is learned the latent scale and min are the grid's own: autograd functions of libtorch 1.13
// take no undefined tensor.
struct RoundToGrid : torch::autograd::Function<RoundToGrid> {
  static Variable forward(AutogradContext* ctx, const Variable& w, const Variable& latent_scale,
                          const Variable& latent_min, const at::Tensor& scale, const at::Tensor& min,
                          std::int64_t codec, std::int64_t group, bool pass_clipped, double factor) {
    ctx->save_for_backward({w, scale, min});
    ctx->saved_data["codec"] = codec;
    ctx->saved_data["group"] = group;
    ctx->saved_data["pass_clipped"] = pass_clipped;
    ctx->saved_data["factor"] = factor;
    ctx->saved_data["learned"] = latent_scale.requires_grad();
    ctx->saved_data["learned_min"] = latent_min.requires_grad();
    const GridView grid = view(w, scale, min, codec, group);
    return w.scalar_type() == at::kDouble ? rounded<double>(grid, w) : rounded<float>(grid, w);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &w = saved[0], &scale = saved[1], &min = saved[2];
    const GridView grid =
        view(w, scale, min, ctx->saved_data["codec"].toInt(), ctx->saved_data["group"].toInt());
    const at::Tensor grad = grads[0].contiguous();
    at::Tensor grad_w = at::empty_like(w), grad_scale, grad_min;
    GridGradients want{ctx->saved_data["pass_clipped"].toBool()};
    if (ctx->saved_data["learned"].toBool()) {
      grad_scale = at::empty_like(scale);
      grad_min = at::zeros_like(min);
      want.scale = grad_scale.data_ptr<float>();
      want.min = grad_min.data_ptr<float>();
    }
    if (w.scalar_type() == at::kDouble) {
      grid_round_backward<double>(grid, w.data_ptr<double>(), grad.data_ptr<double>(),
                                  grad_w.data_ptr<double>(), want);
    } else {
      grid_round_backward<float>(grid, w.data_ptr<float>(), grad.data_ptr<float>(), grad_w.data_ptr<float>(),
                                 want);
    }
    const double factor = ctx->saved_data["factor"].toDouble();
    if (grad_scale.defined() && factor != 1) {
      grad_scale.mul_(factor);
      grad_min.mul_(factor);
    }
    if (!ctx->saved_data["learned_min"].toBool()) grad_min = at::Tensor();
    return {grad_w, grad_scale, grad_min, {}, {}, {}, {}, {}, {}};
  }

  static GridView view(const at::Tensor& w, const at::Tensor& scale, const at::Tensor& min,
                       std::int64_t codec, std::int64_t group) {
    return {reinterpret_cast<const formats::GridCodec*>(codec),
            group,
            w.size(0),
            w.size(1),
            scale.data_ptr<float>(),
            min.data_ptr<float>()};
  }
};

// Hides a tensor from autograd, which would take one that comes in and goes out for an alias.
struct Hidden {
  at::Tensor value;
};
struct StraightThrough : torch::autograd::Function<StraightThrough> {
  static Variable forward(AutogradContext*, const Variable&, const Hidden& hidden) { return hidden.value; }
  static variable_list backward(AutogradContext*, const variable_list& grads) { return {grads[0], {}}; }
};

}  // namespace

at::Tensor round_to_grid(const at::Tensor& w, const ToGrid& grid) {
  return RoundToGrid::apply(w, grid.latent_scale.defined() ? grid.latent_scale : grid.scale,
                            grid.latent_min.defined() ? grid.latent_min : grid.min, grid.scale, grid.min,
                            reinterpret_cast<std::int64_t>(grid.codec), grid.group, grid.pass_clipped,
                            grid.factor);
}

at::Tensor straight_through(const at::Tensor& x, const at::Tensor& value) {
  return StraightThrough::apply(x, Hidden{value});
}

at::Tensor decoded_rows(Format format, const std::byte* rows, std::int64_t n, std::int64_t k) {
  at::Tensor out = at::empty({n, k}, at::kFloat);
  auto* y = out.data_ptr<float>();
  const auto row = static_cast<std::int64_t>(row_bytes(format, k));
  over_rows(n, k, [&](std::int64_t begin, std::int64_t end) {
    format_info(format).decode(rows + begin * row, y + begin * k, (end - begin) * k);
  });
  return out;
}

double lsq_factor(double n, double greatest_level) { return 1 / std::sqrt(n * greatest_level); }

void lean_towards(const GridView& grid, const float* reference, float* values) {
  const std::span<const float> levels = grid.codec->levels;
  const std::int64_t k = grid.k;
  over_rows(grid.n, k, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(k)), after(static_cast<std::size_t>(k));
    std::vector<float> latent(static_cast<std::size_t>(k));
    for (std::int64_t r = begin; r < end; ++r) {
      float* row = values + r * k;
      grid_codes(grid, r, row, codes.data());
      for (std::int64_t i = 0; i < k; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const float lean = reference[r * k + i] - row[i];
        const float s = grid.scale[(r * k + i) / grid.group];
        // The level beside it on the side of the reference; past an end the step is the last one.
        const std::size_t c = codes[at], last = levels.size() - 1;
        const bool up = (lean > 0) == (s > 0);
        const std::size_t below = c == 0 ? 0 : up && c < last ? c : c - 1;
        const float most = 0.49f * std::fabs(s) * (levels[below + 1] - levels[below]);
        // Without a scale every weight has the same value: the reference says which side it would go to.
        latent[at] = s == 0 ? reference[r * k + i] : row[i] + std::clamp(lean, -most, most);
      }
      grid_codes(grid, r, latent.data(), after.data());
      for (std::int64_t i = 0; i < k; ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (after[at] == codes[at]) row[i] = latent[at];  // else fp32 has no room between the levels
      }
    }
  });
}

}  // namespace narrow::train
