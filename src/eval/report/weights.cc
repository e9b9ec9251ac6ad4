#include "eval/report/weights.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/thread_team.h"
#include "eval/report/row_error.h"
#include "quant/quantizer.h"

namespace narrow::eval::report {
namespace {

// Weights per work item: fixed, so that sums do not depend on the number of threads.
constexpr std::int64_t kChunkElements = 64 * 1024;
// Of a tensor, when a larger type is tried on it.
constexpr std::int64_t kSampleElements = 256 * 1024;
constexpr std::size_t kAdvised = 24;
constexpr double kNextError = 0.7;

Result<InputStatistics> statistics_for(const TensorInfo& t, const StatisticsOf& statistics) {
  InputStatistics s;
  if (statistics) s = statistics(t.name);
  const auto k = static_cast<std::size_t>(t.shape.row_length());
  const std::size_t experts = t.shape.rank() == 3 ? static_cast<std::size_t>(t.shape[0]) : 1;
  for (const auto& values : {s.mean_square, s.absmax}) {
    if (values.empty() || values.size() == k || values.size() == experts * k) continue;
    return make_error(ErrorCode::kInvalidArgument,
                      "statistics of {} inputs for tensor {}, which has {}: they belong to another model",
                      values.size(), t.name, k);
  }
  return s;
}

// Reads both tensors in chunks of whole rows, and sums their errors in order.
Result<RowError> compare(const model::ModelSource& model, std::size_t at, const model::ModelSource& reference,
                         std::size_t other, const InputStatistics& statistics) {
  const TensorInfo& t = model.tensors()[at];
  const std::int64_t k = t.shape.row_length(), n = t.shape.rows();
  const std::int64_t step = std::max<std::int64_t>(1, kChunkElements / std::max<std::int64_t>(1, k));
  const std::int64_t chunks = (n + step - 1) / step;
  std::vector<RowError> parts(static_cast<std::size_t>(chunks));
  std::vector<Status> failures(static_cast<std::size_t>(chunks));
  parallel_for(chunks, [&](std::int64_t chunk, int) {
    const std::int64_t begin = chunk * step, end = std::min(n, begin + step);
    std::vector<float> mine(static_cast<std::size_t>((end - begin) * k)), exact(mine.size());
    Status& failure = failures[static_cast<std::size_t>(chunk)];
    failure = model.read_f32(at, begin, end, mine.data());
    if (failure.ok()) failure = reference.read_f32(other, begin, end, exact.data());
    if (!failure.ok()) return;
    for (std::int64_t r = begin; r < end; ++r) {
      const std::size_t row = static_cast<std::size_t>((r - begin) * k);
      parts[static_cast<std::size_t>(chunk)].add(exact.data() + row, mine.data() + row,
                                                 row_importance(t.shape, statistics.mean_square, r), k);
    }
  });
  RowError sum;
  for (std::size_t c = 0; c < parts.size(); ++c) {
    NARROW_TRY(failures[c]);
    sum.add(parts[c]);
  }
  model.drop(at);
  reference.drop(other);
  if (!std::isfinite(sum.squared_error)) {
    return make_error(ErrorCode::kNumeric,
                      "{}: tensor '{}' or its reference has a NaN or infinity: it is damaged",
                      model.path().string(), t.name);
  }
  return sum;
}

// The error that a tensor's share in the divergence goes with: of the outputs where inputs are known.
double damage_of(const TensorDamage& d) {
  return std::isfinite(d.output_error) ? d.output_error : d.relative_rms;
}

// Larger types, smallest first; the second row for rows that are no multiple of 256.
constexpr Format kLadder[] = {Format::kIQ2_XXS, Format::kQ2_K, Format::kQ3_K, Format::kIQ4_XS, Format::kQ4_K,
                              Format::kQ5_K,    Format::kQ6_K, Format::kQ8_0, Format::kF16};
constexpr Format kNarrowLadder[] = {Format::kIQ4_NL, Format::kQ5_0, Format::kQ5_1, Format::kQ8_0,
                                    Format::kF16};

std::vector<Format> larger_types(Format now, std::int64_t k) {
  std::vector<Format> out;
  const bool wide = k % format_info(Format::kQ4_K).block_size == 0;
  const std::span<const Format> ladder = wide ? std::span<const Format>(kLadder) : kNarrowLadder;
  for (const Format f : ladder) {
    const FormatInfo& info = format_info(f);
    if (info.can_encode() && k % info.block_size == 0 && info.bpw() > format_info(now).bpw())
      out.push_back(f);
  }
  return out;
}

// Evenly spaced rows of a tensor and of its reference.
struct Sample {
  std::vector<std::int64_t> rows;
  std::vector<float> mine, exact;
};

Result<Sample> sample_rows(const model::ModelSource& model, std::size_t at,
                           const model::ModelSource& reference, std::size_t other) {
  const Shape& shape = model.tensors()[at].shape;
  const std::int64_t k = shape.row_length(), n = shape.rows();
  const std::int64_t count = std::clamp<std::int64_t>(kSampleElements / k, 1, n);
  Sample s;
  s.mine.resize(static_cast<std::size_t>(count * k));
  s.exact.resize(s.mine.size());
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t r = i * n / count;
    s.rows.push_back(r);
    NARROW_TRY(model.read_f32(at, r, r + 1, s.mine.data() + i * k));
    NARROW_TRY(reference.read_f32(other, r, r + 1, s.exact.data() + i * k));
  }
  return s;
}

// The sample's error after round-to-nearest in another type. Rows of different experts have inputs of their
// own, so each stretch of rows with the same importance is quantized by itself.
Result<RowError> error_in(Format format, const Shape& shape, const Sample& s,
                          const InputStatistics& statistics) {
  const quant::Method* method = quant::find_method("rtn");
  if (method == nullptr) return make_error(ErrorCode::kInternal, "method rtn is not in the registry");
  const std::int64_t k = shape.row_length();
  const auto importance = [&](std::size_t i) {
    return row_importance(shape, statistics.mean_square, s.rows[i]);
  };
  quant::QuantizeSpec spec;
  spec.format = format;
  RowError sum;
  std::vector<std::byte> stored;
  std::vector<float> decoded(static_cast<std::size_t>(k));
  for (std::size_t begin = 0, end = 0; begin < s.rows.size(); begin = end) {
    while (end < s.rows.size() && importance(end) == importance(begin)) ++end;
    const auto n = static_cast<std::int64_t>(end - begin);
    const float* exact = s.exact.data() + begin * static_cast<std::size_t>(k);
    quant::LayerStats stats;
    if (importance(begin) != nullptr) stats.mean_square = {importance(begin), static_cast<std::size_t>(k)};
    stored.resize(static_cast<std::size_t>(n) * row_bytes(format, k));
    NARROW_TRY(method->quantize(exact, n, k, stats, spec, stored.data(), nullptr));
    for (std::int64_t r = 0; r < n; ++r) {
      NARROW_TRY(decode_row(format, stored.data() + static_cast<std::size_t>(r) * row_bytes(format, k),
                            decoded.data(), k));
      sum.add(exact + r * k, decoded.data(), importance(begin), k);
    }
  }
  return sum;
}

Result<Advice> advise_tensor(const model::ModelSource& model, const model::ModelSource& reference,
                             const TensorDamage& d, const StatisticsOf& statistics) {
  const std::size_t at = *model.find(d.name);
  const TensorInfo& t = model.tensors()[at];
  NARROW_ASSIGN(const std::size_t other, counterpart(model, t, reference));
  NARROW_ASSIGN(const InputStatistics s, statistics_for(t, statistics));
  NARROW_ASSIGN(const Sample sample, sample_rows(model, at, reference, other));
  const std::int64_t k = t.shape.row_length();
  RowError now;
  for (std::size_t i = 0; i < sample.rows.size(); ++i) {
    const std::size_t row = i * static_cast<std::size_t>(k);
    now.add(sample.exact.data() + row, sample.mine.data() + row,
            row_importance(t.shape, s.mean_square, sample.rows[i]), k);
  }
  Advice a;
  a.tensor = d.name;
  a.from = d.type;
  a.to = d.type;
  a.error_now = now.best();
  a.error_then = now.best();
  for (const Format f : larger_types(d.type, k)) {
    NARROW_ASSIGN(const RowError then, error_in(f, t.shape, sample, s));
    // A type that is only a little better is not the next larger one, whatever its size: a bit halves errors.
    if (then.best() > kNextError * a.error_now) continue;
    a.to = f;
    a.error_then = then.best();
    break;
  }
  a.more_bytes = static_cast<std::int64_t>(TensorInfo{t.name, a.to, t.shape}.bytes()) -
                 static_cast<std::int64_t>(t.bytes());
  const double ratio = a.error_now > 0 ? a.error_then / a.error_now : 1;
  a.kl_change = -d.kl_share * (1 - ratio * ratio);
  return a;
}

// Indices of the `count` largest values, ties in order.
std::vector<std::size_t> largest(const std::vector<double>& values, std::size_t count) {
  std::vector<std::size_t> at(values.size());
  std::iota(at.begin(), at.end(), std::size_t{0});
  std::stable_sort(at.begin(), at.end(), [&](std::size_t a, std::size_t b) { return values[a] > values[b]; });
  at.resize(std::min(count, at.size()));
  return at;
}

}  // namespace

Status check_same_shapes(const model::ModelSource& model, const model::ModelSource& reference) {
  const model::ModelConfig &a = model.config(), &b = reference.config();
  const auto differ = [&](std::string_view what, const auto& mine, const auto& others) -> Status {
    if (mine == others) return {};
    return make_error(ErrorCode::kInvalidArgument,
                      "{} does not belong to the reference {}: its {} is {}, the reference's {}",
                      model.path().string(), reference.path().string(), what, mine, others);
  };
  NARROW_TRY(differ("architecture", a.arch, b.arch));
  NARROW_TRY(differ("vocabulary", a.n_vocab, b.n_vocab));
  NARROW_TRY(differ("number of layers", a.n_layer, b.n_layer));
  NARROW_TRY(differ("width", a.n_embd, b.n_embd));
  for (const TensorInfo& t : model.tensors()) {
    if (!model::is_quantizable(t)) continue;
    const auto other = counterpart(model, t, reference);
    if (!other.ok()) return other.error();
  }
  return {};
}

Result<std::size_t> counterpart(const model::ModelSource& model, const TensorInfo& tensor,
                                const model::ModelSource& reference) {
  auto at = reference.find(tensor.name);
  if (!at && tensor.name == "output.weight") at = reference.find("token_embd.weight");
  if (!at) {
    return make_error(ErrorCode::kInvalidArgument, "{}: the reference {} has no tensor '{}'",
                      model.path().string(), reference.path().string(), tensor.name);
  }
  const Shape& other = reference.tensors()[*at].shape;
  if (other != tensor.shape) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{} does not belong to the reference {}: tensor '{}' is {}, the reference's {}",
                      model.path().string(), reference.path().string(), tensor.name, tensor.shape.text(),
                      other.text());
  }
  return *at;
}

Result<std::vector<TensorDamage>> compare_weights(const model::ModelSource& model,
                                                  const model::ModelSource& reference,
                                                  const StatisticsOf& statistics, ProgressSink& progress) {
  const std::vector<TensorInfo>& tensors = model.tensors();
  progress.begin("compare weights", tensors.size(), "tensors");
  std::vector<TensorDamage> out;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& t = tensors[i];
    progress.update(i, t.name);
    if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
    if (!model::is_quantizable(t)) continue;
    NARROW_ASSIGN(const std::size_t other, counterpart(model, t, reference));
    NARROW_ASSIGN(const InputStatistics s, statistics_for(t, statistics));
    NARROW_ASSIGN(const RowError e, compare(model, i, reference, other, s));
    TensorDamage d;
    d.name = t.name;
    std::tie(d.layer, d.kind) = layer_and_kind(t.name);
    d.type = t.format;
    d.reference_type = reference.tensors()[other].format;
    d.shape = t.shape;
    d.relative_rms = e.relative_rms();
    d.max_abs_error = e.max_abs;
    d.output_error = e.weighted ? e.output_error() : std::numeric_limits<double>::quiet_NaN();
    out.push_back(std::move(d));
  }
  progress.update(tensors.size(), "");
  progress.end();
  double sum = 0;
  for (const TensorDamage& d : out) sum += damage_of(d) * damage_of(d);
  if (sum > 0) {
    for (TensorDamage& d : out) d.kl_share = damage_of(d) * damage_of(d) / sum;
  }
  return out;
}

std::vector<std::string> most_damaged(const std::vector<TensorDamage>& damages, std::size_t count) {
  std::vector<double> shares;
  for (const TensorDamage& d : damages) shares.push_back(d.kl_share);
  std::vector<std::string> out;
  for (const std::size_t i : largest(shares, count)) out.push_back(damages[i].name);
  return out;
}

Result<std::vector<Advice>> advise(const model::ModelSource& model, const model::ModelSource& reference,
                                   const std::vector<TensorDamage>& damages, const StatisticsOf& statistics,
                                   ProgressSink& progress) {
  std::vector<double> shares, per_byte;
  for (const TensorDamage& d : damages) {
    shares.push_back(d.kl_share);
    per_byte.push_back(d.kl_share / static_cast<double>(std::max<std::int64_t>(1, d.shape.elements())));
  }
  std::vector<std::size_t> chosen = largest(shares, kAdvised / 2);
  for (const std::size_t i : largest(per_byte, kAdvised)) {
    if (chosen.size() == kAdvised) break;
    if (std::find(chosen.begin(), chosen.end(), i) == chosen.end()) chosen.push_back(i);
  }
  progress.begin("try larger types", chosen.size(), "tensors");
  std::vector<Advice> out;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const TensorDamage& d = damages[chosen[i]];
    progress.update(i, d.name);
    if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
    NARROW_ASSIGN(Advice a, advise_tensor(model, reference, d, statistics));
    if (a.more_bytes > 0 && a.kl_change < 0) out.push_back(std::move(a));
  }
  progress.update(chosen.size(), "");
  progress.end();
  std::stable_sort(out.begin(), out.end(),
                   [](const Advice& a, const Advice& b) { return a.kl_change < b.kl_change; });
  return out;
}

}  // namespace narrow::eval::report
