#include "train/nodes/block_weight.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "train/nodes/round_to_grid.h"

namespace narrow::train {
namespace {

at::Tensor as_float(const at::Tensor& w) { return w.detach().to(at::kFloat).contiguous(); }

}  // namespace

BlockWeight::BlockWeight(Format format, std::int64_t n, std::int64_t k, const BlockWeightOptions& options)
    : format_(format),
      codec_(formats::grid_codec(format)),
      n_(n),
      k_(k),
      groups_(k / codec_->group),
      options_(options) {}

Result<std::shared_ptr<BlockWeight>> BlockWeight::create(Format format, std::vector<std::byte> start,
                                                         std::int64_t n, std::int64_t k,
                                                         const BlockWeightOptions& options) {
  const FormatInfo& info = format_info(format);
  if (formats::grid_codec(format) == nullptr) {
    return make_error(
        ErrorCode::kUnsupported,
        "training for {} is not possible: its weights have no codes of their own; choose q4_0, q4_k "
        "or another format with scalar codes",
        info.name);
  }
  if (n < 1 || k < 1 || k % info.block_size != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{} weight of [{}, {}]: rows must be a multiple of {} long", info.name, n, k,
                      info.block_size);
  }
  std::shared_ptr<BlockWeight> node(new BlockWeight(format, n, k, options));
  if (node->reencodes() && start.empty()) return node;
  const std::size_t row = row_bytes(format, k);
  if (start.size() != static_cast<std::size_t>(n) * row) {
    return make_error(ErrorCode::kInvalidArgument, "{} weight of [{}, {}] starts from {} bytes, not from {}",
                      info.name, n, k, start.size(), static_cast<std::size_t>(n) * row);
  }
  node->start_ = at::empty({n, static_cast<std::int64_t>(row)}, at::kByte);
  std::memcpy(node->start_.data_ptr(), start.data(), start.size());
  const Grid grid = node->grid();
  if (!grid.scale.isfinite().all().item<bool>() || !grid.min.isfinite().all().item<bool>()) {
    return make_error(ErrorCode::kNumeric,
                      "{} weight of [{}, {}] starts from a scale that is no finite number", info.name, n, k);
  }
  if (options.scales == BlockScales::kLearned) {
    node->scale_ = grid.scale.clone().requires_grad_(true);
    if (node->codec_->dmin_offset >= 0) node->min_ = grid.min.clone().requires_grad_(true);
  }
  return node;
}

BlockWeight::Grid BlockWeight::grid() const {
  const FormatInfo& info = format_info(format_);
  const std::int64_t blocks = k_ / info.block_size, groups = info.block_size / codec_->group;
  Grid grid{at::empty({n_, groups_}, at::kFloat), at::empty({n_, groups_}, at::kFloat)};
  const auto* start = static_cast<const std::byte*>(start_.data_ptr());
  float *scale = grid.scale.data_ptr<float>(), *min = grid.min.data_ptr<float>();
  const float* latent_scale = scale_.defined() ? scale_.data_ptr<float>() : nullptr;
  const float* latent_min = min_.defined() ? min_.data_ptr<float>() : nullptr;
  over_rows(n_, k_, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::byte> block(static_cast<std::size_t>(info.block_bytes));
    const float no_min[16] = {};
    for (std::int64_t b = begin * blocks; b < end * blocks; ++b) {
      const std::int64_t g = b * groups;
      const std::byte* bytes = start + b * info.block_bytes;
      if (latent_scale != nullptr) {
        std::memcpy(block.data(), bytes, block.size());
        formats::write_grid(format_, block.data(), latent_scale + g,
                            latent_min != nullptr ? latent_min + g : no_min);
        bytes = block.data();
      }
      formats::read_grid(format_, bytes, scale + g, min + g);
    }
  });
  return grid;
}

std::vector<std::byte> BlockWeight::encode_anew(const float* w) const {
  const std::size_t row = row_bytes(format_, k_);
  std::vector<std::byte> out(static_cast<std::size_t>(n_) * row);
  const EncodeOptions how{.importance = nullptr, .search = options_.scales == BlockScales::kSearched};
  over_rows(n_, k_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      format_info(format_).encode(w + r * k_, out.data() + static_cast<std::size_t>(r) * row, k_, how);
    }
  });
  return out;
}

at::Tensor BlockWeight::apply(const at::Tensor& w) {
  if (phase() == Phase::kOff || phase() == Phase::kObserve) return w;
  if (w.scalar_type() != at::kFloat && (w.scalar_type() != at::kDouble || reencodes())) {
    return apply(w.to(at::kFloat)).to(w.scalar_type());
  }
  const at::Tensor x = w.contiguous();
  if (reencodes()) {
    const at::Tensor plain = x.detach();
    const std::vector<std::byte> bytes = encode_anew(plain.data_ptr<float>());
    return straight_through(x, decoded_rows(format_, bytes.data(), n_, k_));
  }
  const Grid now = grid();
  ToGrid to{codec_, codec_->group, now.scale, now.min, {}, {}, options_.pass_clipped};
  if (phase() == Phase::kOn) {
    to.latent_scale = scale_;
    to.latent_min = min_;
  }
  const double greatest = std::max(std::fabs(static_cast<double>(codec_->levels.front())),
                                   std::fabs(static_cast<double>(codec_->levels.back())));
  if (options_.scaled_gradient) to.factor = lsq_factor(codec_->group, greatest);
  return round_to_grid(x, to);
}

Result<std::vector<std::byte>> BlockWeight::encode(const at::Tensor& w) {
  if (w.dim() != 2 || w.size(0) != n_ || w.size(1) != k_) {
    return make_error(ErrorCode::kInvalidArgument, "{} weight of [{}, {}] cannot be encoded from {} numbers",
                      format_info(format_).name, n_, k_, w.numel());
  }
  const at::Tensor x = as_float(w.cpu());
  const auto* values = x.data_ptr<float>();
  if (const std::int64_t bad = find_non_finite(values, x.numel()); bad >= 0) {
    return make_error(ErrorCode::kNumeric, "weight [{}, {}] is {}; {} stores finite numbers only", bad / k_,
                      bad % k_, values[bad], format_info(format_).name);
  }
  if (reencodes()) return encode_anew(values);
  const FormatInfo& info = format_info(format_);
  const Grid now = grid();
  if (!now.scale.isfinite().all().item<bool>() || !now.min.isfinite().all().item<bool>()) {
    return make_error(ErrorCode::kNumeric, "a learned scale of a {} weight is no finite number", info.name);
  }
  const GridView view{codec_, codec_->group, n_, k_, now.scale.data_ptr<float>(), now.min.data_ptr<float>()};
  const auto* start = static_cast<const std::byte*>(start_.data_ptr());
  std::vector<std::byte> out(start, start + start_.numel());
  const std::int64_t blocks = k_ / info.block_size, groups = info.block_size / codec_->group;
  over_rows(n_, k_, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(k_));
    const float no_min[16] = {};
    for (std::int64_t r = begin; r < end; ++r) {
      grid_codes(view, r, values + r * k_, codes.data());
      for (std::int64_t b = 0; b < blocks; ++b) {
        std::byte* block = out.data() + (r * blocks + b) * info.block_bytes;
        if (scale_.defined()) {
          const std::int64_t g = (r * blocks + b) * groups;
          formats::write_grid(format_, block, scale_.data_ptr<float>() + g,
                              min_.defined() ? min_.data_ptr<float>() + g : no_min);
        }
        codec_->write(block, codes.data() + b * info.block_size);
      }
    }
  });
  return out;
}

at::Tensor BlockWeight::start_values() const {
  return decoded_rows(format_, static_cast<const std::byte*>(start_.data_ptr()), n_, k_);
}

at::Tensor BlockWeight::start_latent(const at::Tensor& reference) const {
  at::Tensor out = start_values();
  const at::Tensor x = as_float(reference.cpu());
  const Grid now = grid();
  const GridView view{codec_, codec_->group, n_, k_, now.scale.data_ptr<float>(), now.min.data_ptr<float>()};
  lean_towards(view, x.data_ptr<float>(), out.data_ptr<float>());
  return out;
}

std::vector<NamedTensor> BlockWeight::parameters() {
  std::vector<NamedTensor> out;
  if (scale_.defined()) out.push_back({"scale", scale_});
  if (min_.defined()) out.push_back({"min", min_});
  return out;
}

std::vector<NamedTensor> BlockWeight::buffers() {
  if (reencodes()) return {};
  return {{"start", start_}};
}

std::string BlockWeight::describe() const {
  constexpr const char* kNames[] = {"fixed scales", "learned scales", "absmax scales", "searched scales"};
  return fmt::format("{}, {}", format_info(format_).name, kNames[static_cast<int>(options_.scales)]);
}

}  // namespace narrow::train
