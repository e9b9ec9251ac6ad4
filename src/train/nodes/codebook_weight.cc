#include "train/nodes/codebook_weight.h"

#include <cstring>

#include "base/scalar.h"
#include "formats/unit_codec.h"
#include "train/nodes/round_to_grid.h"

namespace narrow::train {
bool CodebookWeight::supports(Format format) {
  const formats::UnitCodec* codec = formats::unit_codec(format);
  return codec != nullptr && codec->d_offset >= 0;
}

Result<std::shared_ptr<CodebookWeight>> CodebookWeight::create(Format format, std::vector<std::byte> start,
                                                               std::int64_t n, std::int64_t k) {
  const FormatInfo& info = format_info(format);
  if (!supports(format)) {
    return make_error(ErrorCode::kUnsupported,
                      "{} is no format of vector codebooks with factors of their own", info.name);
  }
  if (n < 1 || k < 1 || k % info.block_size != 0 ||
      start.size() != static_cast<std::size_t>(n) * row_bytes(format, k)) {
    return make_error(ErrorCode::kInvalidArgument, "{} weight of [{}, {}] starts from {} bytes", info.name, n,
                      k, start.size());
  }
  std::shared_ptr<CodebookWeight> node(new CodebookWeight(format, n, k));
  const auto row = static_cast<std::int64_t>(row_bytes(format, k));
  node->start_ = at::empty({n, row}, at::kByte);
  std::memcpy(node->start_.data_ptr(), start.data(), start.size());
  const std::int64_t blocks = k / info.block_size;
  node->factor_ = at::empty({n, blocks}, at::kFloat);
  auto* factor = node->factor_.data_ptr<float>();
  const int offset = formats::unit_codec(format)->d_offset;
  for (std::int64_t b = 0; b < n * blocks; ++b) {
    f16 d;
    std::memcpy(&d, start.data() + b * info.block_bytes + offset, sizeof(d));
    factor[b] = to_f32(d);
  }
  if (!node->factor_.isfinite().all().item<bool>()) {
    return make_error(ErrorCode::kNumeric,
                      "{} weight of [{}, {}] starts from a scale that is no finite number", info.name, n, k);
  }
  const at::Tensor per_block = node->factor_.unsqueeze(-1);
  node->unit_ = at::where(per_block == 0, at::zeros_like(per_block),
                          node->values().view({n, blocks, info.block_size}) / per_block);
  node->factor_.requires_grad_(true);
  return node;
}

std::vector<std::byte> CodebookWeight::bytes() const {
  const auto* start = static_cast<const std::byte*>(start_.data_ptr());
  std::vector<std::byte> out(start, start + start_.numel());
  const auto* factor = factor_.data_ptr<float>();
  const int offset = formats::unit_codec(format_)->d_offset;
  for (std::int64_t b = 0; b < factor_.numel(); ++b) {
    const f16 d = to_f16(factor[b]);
    std::memcpy(out.data() + b * format_info(format_).block_bytes + offset, &d, sizeof(d));
  }
  return out;
}

at::Tensor CodebookWeight::values() const { return decoded_rows(format_, bytes().data(), n_, k_); }

at::Tensor CodebookWeight::apply(const at::Tensor& w) {
  if (phase() == Phase::kOff || phase() == Phase::kObserve) return w;
  const at::Tensor factor = phase() == Phase::kOn ? factor_ : factor_.detach();
  return straight_through((unit_ * factor.unsqueeze(-1)).view({n_, k_}), values()).to(w.options());
}

Result<std::vector<std::byte>> CodebookWeight::encode(const at::Tensor&) {
  if (!factor_.isfinite().all().item<bool>()) {
    return make_error(ErrorCode::kNumeric, "a learned scale of a {} weight is no finite number",
                      format_info(format_).name);
  }
  return bytes();
}

std::string CodebookWeight::describe() const {
  return fmt::format("{}, learned scales, codes stay", format_info(format_).name);
}

}  // namespace narrow::train
