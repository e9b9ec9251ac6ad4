#include "pipeline/damage.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "base/thread_team.h"
#include "pipeline/mixes.h"
#include "pipeline/probe.h"

namespace narrow::pipeline {
namespace {

using enum Format;
using model::ModelSource;

constexpr Format kWithKernels[] = {kQ2_K, kQ3_K, kIQ4_XS, kMXFP4, kQ4_K, kIQ4_NL, kQ4_0,
                                   kQ4_1, kQ5_K, kQ5_0,   kQ5_1,  kQ6_K, kQ8_0};
constexpr Format kCodebooks[] = {kIQ1_S, kIQ1_M, kIQ2_XXS, kIQ2_XS, kIQ2_S, kIQ3_XXS, kIQ3_S};

// Spot runs: tokens, and the products that all of them together may take before layers are left out.
constexpr std::int64_t kSpotTokens = 512, kSpotWindow = 128;
constexpr double kSpotProducts = 2e12;
constexpr double kSpotBpw = 4.5;
constexpr std::int64_t kSampledRows =
    1024;  // of a tensor, for its errors; of each expert where there are any

// E[x^2] of the inputs of one tensor, or of each of its experts. Empty: unknown, all the same.
class TensorImportance {
 public:
  TensorImportance(const calib::ModelStats* stats, const TensorInfo& t) {
    if (stats == nullptr) return;
    const auto it = stats->inputs.find(t.name);
    if (it == stats->inputs.end()) return;
    for (calib::Moments& m : calib::moments(it->second)) {
      if (static_cast<std::int64_t>(m.mean_square.size()) != t.shape.row_length()) {
        groups_.clear();
        return;
      }
      groups_.push_back(std::move(m.mean_square));
    }
    if (groups_.empty()) return;
    rows_per_group_ = std::max<std::int64_t>(1, t.shape.rows() / static_cast<std::int64_t>(groups_.size()));
  }
  std::span<const float> of_row(std::int64_t row) const {
    if (groups_.empty()) return {};
    return groups_[std::min(groups_.size() - 1, static_cast<std::size_t>(row / rows_per_group_))];
  }

 private:
  std::vector<std::vector<float>> groups_;
  std::int64_t rows_per_group_ = 1;
};

bool is_small(Format f) {
  return std::find(std::begin(kCodebooks), std::end(kCodebooks), f) != std::end(kCodebooks);
}

double squared_error(std::span<const float> h, const float* w, const float* q, std::int64_t k) {
  std::array<double, 8> sum{};
  for (std::int64_t j = 0; j < k; ++j) {
    const double d = static_cast<double>(w[j]) - q[j];
    sum[static_cast<std::size_t>(j % 8)] += (h.empty() ? 1.0 : h[static_cast<std::size_t>(j)]) * d * d;
  }
  return std::accumulate(sum.begin(), sum.end(), 0.0);
}

// Output errors of the tensor in each format, from rows at even distances.
Status output_errors(const ModelSource& source, std::size_t index, const TensorImportance& importance,
                     bool search, const std::vector<Format>& formats, std::vector<double>& errors) {
  const TensorInfo& t = source.tensors()[index];
  const std::int64_t k = t.shape.row_length(), rows = t.shape.rows();
  const std::int64_t experts = t.shape.rank() > 2 ? t.shape[0] : 1;
  const std::int64_t n = std::min(rows, kSampledRows * experts);
  std::vector<double> partial(static_cast<std::size_t>(n) * formats.size());
  std::vector<Status> results(static_cast<std::size_t>(n));
  parallel_for(n, [&](std::int64_t i, int) {
    const auto work = [&]() -> Status {
      const std::int64_t row = i * rows / n;
      std::vector<float> w(static_cast<std::size_t>(k)), q(w.size());
      NARROW_TRY(source.read_f32(index, row, row + 1, w.data()));
      if (const std::int64_t bad = find_non_finite(w.data(), k); bad >= 0) {
        return make_error(ErrorCode::kNumeric, "{}: tensor {} holds {} in row {}: the model is damaged",
                          source.path().string(), t.name, w[static_cast<std::size_t>(bad)], row);
      }
      const std::span<const float> h = importance.of_row(row);
      EncodeOptions options;
      options.search = search;
      options.importance = h.empty() ? nullptr : h.data();
      for (std::size_t f = 0; f < formats.size(); ++f) {
        std::vector<std::byte> stored(row_bytes(formats[f], k));
        NARROW_TRY(encode_row(formats[f], w.data(), stored.data(), k, options));
        NARROW_TRY(decode_row(formats[f], stored.data(), q.data(), k));
        partial[static_cast<std::size_t>(i) * formats.size() + f] = squared_error(h, w.data(), q.data(), k);
      }
      return {};
    };
    results[static_cast<std::size_t>(i)] = work();
  });
  for (const Status& s : results) NARROW_TRY(s);
  errors.assign(formats.size(), 0.0);
  for (std::size_t i = 0; i < partial.size(); ++i) errors[i % formats.size()] += partial[i];
  for (double& e : errors) e *= static_cast<double>(rows) / static_cast<double>(n);
  return {};
}

// One tensor on its way into the table.
struct Item {
  std::size_t index = 0;    // in the source
  std::int64_t layer = -1;  // -1: embedding or head
  std::string family;       // its name without the layer
  std::vector<Format> formats;
  std::vector<double> errors;
  std::size_t spot = 0;  // which of the formats the spot run takes
  bool measure = false;
  double kl = 0;  // of the spot run
};

std::string family_of(const std::string& name) {
  return name.starts_with("blk.") ? name.substr(name.find('.', 4)) : name;
}

// Every s-th layer, and the last, such that the products of all spot runs stay within their budget.
void choose_measured(std::vector<Item>& items, const ModelSource& source) {
  const std::int64_t n_layer = source.config().n_layer;
  double layer_weights = 0;
  for (const Item& it : items) {
    if (it.layer >= 0) layer_weights += static_cast<double>(source.tensors()[it.index].shape.elements());
  }
  const double total = layer_weights / 2 * kSpotTokens * static_cast<double>(items.size());
  const auto stride = std::clamp<std::int64_t>(static_cast<std::int64_t>(std::ceil(total / kSpotProducts)), 1,
                                               std::max<std::int64_t>(1, n_layer / 4));
  for (Item& it : items) {
    it.measure = it.layer < 0 || it.layer % stride == 0 || it.layer == n_layer - 1;
  }
}

// KL per output error. Where it was not measured: between the nearest layers of the family that were.
double sensitivity(const std::vector<Item>& items, const Item& item) {
  const auto own = [](const Item& i) {
    return i.errors[i.spot] > 0 ? std::max(0.0, i.kl) / i.errors[i.spot] : 0.0;
  };
  if (item.measure) return own(item);
  const Item *before = nullptr, *after = nullptr;
  for (const Item& i : items) {
    if (!i.measure || i.family != item.family) continue;
    if (i.layer < item.layer && (before == nullptr || i.layer > before->layer)) before = &i;
    if (i.layer > item.layer && (after == nullptr || i.layer < after->layer)) after = &i;
  }
  if (before == nullptr || after == nullptr) {
    const Item* one = before != nullptr ? before : after;
    return one != nullptr ? own(*one) : 0;
  }
  const double a = own(*before), b = own(*after);
  const double at =
      static_cast<double>(item.layer - before->layer) / static_cast<double>(after->layer - before->layer);
  return a > 0 && b > 0 ? std::exp(std::log(a) * (1 - at) + std::log(b) * at) : a * (1 - at) + b * at;
}

// The beginnings of the windows, kSpotWindow tokens each.
calib::TokenWindows spot_windows(const calib::TokenWindows& windows) {
  calib::TokenWindows out;
  // Spread over all windows, which may be of different texts.
  const auto count = static_cast<std::int64_t>(windows.lengths.size());
  const std::int64_t wanted = std::min(count, kSpotTokens / kSpotWindow);
  std::vector<std::int64_t> begins;
  std::int64_t at = 0;
  for (const std::int64_t n : windows.lengths) {
    begins.push_back(at);
    at += n;
  }
  const std::int64_t length = wanted > 0 ? kSpotTokens / wanted : 0;
  for (std::int64_t i = 0; i < wanted; ++i) {
    const auto w = static_cast<std::size_t>(i * count / wanted);
    const std::int64_t n = std::min(windows.lengths[w], length);
    out.add(windows, begins[w], n);
  }
  return out;
}

}  // namespace

std::vector<Format> candidate_types(std::int64_t row_length, bool small) {
  std::vector<Format> out;
  const auto add = [&](Format f) {
    if (row_length % format_info(f).block_size == 0 && format_info(f).can_encode()) out.push_back(f);
  };
  for (const Format f : kWithKernels) add(f);
  if (small) {
    for (const Format f : kCodebooks) add(f);
  }
  if (out.empty()) out.push_back(kF16);
  std::stable_sort(out.begin(), out.end(),
                   [](Format a, Format b) { return format_info(a).bpw() < format_info(b).bpw(); });
  return out;
}

const TensorDamage* DamageTable::find(std::string_view name) const {
  for (const TensorDamage& t : tensors) {
    if (t.name == name) return &t;
  }
  return nullptr;
}

Result<double> DamageTable::predict(std::span<const std::pair<std::string, Format>> types) const {
  double sum = 0;
  for (const auto& [name, format] : types) {
    const TensorDamage* t = find(name);
    if (t == nullptr) continue;
    const auto it = std::find_if(t->types.begin(), t->types.end(),
                                 [f = format](const TypeDamage& d) { return d.format == f; });
    if (it == t->types.end()) {
      return make_error(ErrorCode::kInvalidArgument, "the damage of {} in {} was not measured", name,
                        format_info(format).name);
    }
    sum += it->kl;
  }
  return floor + scale * sum;
}

Result<AlignedBuffer<std::byte>> encode_tensor(const ModelSource& source, std::size_t index, Format format,
                                               const calib::ModelStats* stats, bool search) {
  const TensorInfo& t = source.tensors()[index];
  const std::int64_t k = t.shape.row_length(), rows = t.shape.rows();
  const std::size_t stride = row_bytes(format, k);
  const TensorImportance importance(stats, t);
  AlignedBuffer<std::byte> out(static_cast<std::size_t>(rows) * stride);
  constexpr std::int64_t kBlock = 16;
  const std::int64_t blocks = (rows + kBlock - 1) / kBlock;
  std::vector<Status> results(static_cast<std::size_t>(blocks));
  parallel_for(blocks, [&](std::int64_t b, int) {
    std::vector<float> w(static_cast<std::size_t>(k));
    const auto work = [&](std::int64_t row) -> Status {
      NARROW_TRY(source.read_f32(index, row, row + 1, w.data()));
      if (find_non_finite(w.data(), k) >= 0) {
        return make_error(ErrorCode::kNumeric, "{}: tensor {} is not finite in row {}: the model is damaged",
                          source.path().string(), t.name, row);
      }
      const std::span<const float> h = importance.of_row(row);
      EncodeOptions options;
      options.search = search;
      options.importance = h.empty() ? nullptr : h.data();
      return encode_row(format, w.data(), out.data() + static_cast<std::size_t>(row) * stride, k, options);
    };
    for (std::int64_t row = b * kBlock; row < std::min(rows, (b + 1) * kBlock); ++row) {
      Status s = work(row);
      if (!s.ok()) {
        results[static_cast<std::size_t>(b)] = std::move(s);
        return;
      }
    }
  });
  for (const Status& s : results) NARROW_TRY(s);
  return out;
}

Result<DamageTable> measure_damage(const DamageInputs& in, ProgressSink& progress) {
  const ModelSource& source = *in.source;
  std::vector<Item> items;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const TensorInfo& t = source.tensors()[i];
    if (!model::is_quantizable(t)) continue;
    Item item;
    item.index = i;
    item.layer = layer_of(t.name);
    item.family = family_of(t.name);
    const std::int64_t k = t.shape.row_length();
    if (i < in.fixed.size() && in.fixed[i]) {
      item.formats = {*in.fixed[i]};
    } else {
      item.formats = candidate_types(k, in.small);
      const Format half = t.format == kBF16 ? kBF16 : kF16;
      if (in.floats && item.formats.back() != half) item.formats.push_back(half);
    }
    const auto distance = [&](Format f) {
      return std::fabs(format_info(f).bpw() - kSpotBpw) + (is_small(f) ? 100.0 : 0.0);
    };
    for (std::size_t f = 1; f < item.formats.size(); ++f) {
      if (distance(item.formats[f]) < distance(item.formats[item.spot])) item.spot = f;
    }
    items.push_back(std::move(item));
  }

  progress.begin("weigh types", items.size(), "tensors");
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
    const TensorInfo& t = source.tensors()[items[i].index];
    NARROW_TRY(output_errors(source, items[i].index, TensorImportance(in.stats, t), in.search,
                             items[i].formats, items[i].errors));
    source.drop(items[i].index);
    progress.update(i + 1, t.name);
  }
  progress.end();

  choose_measured(items, source);
  NARROW_ASSIGN(LayerProbe probe, LayerProbe::create(in.source, spot_windows(in.windows), progress));
  const auto overlay = std::make_shared<model::OverlaySource>(in.source);
  progress.begin("spot runs", items.size(), "tensors");
  for (std::size_t i = 0; i < items.size(); ++i) {
    Item& item = items[i];
    const TensorInfo& t = source.tensors()[item.index];
    progress.update(i, t.name);
    if (!item.measure || item.errors[item.spot] == 0) continue;
    const Format format = item.formats[item.spot];
    NARROW_ASSIGN(AlignedBuffer<std::byte> data,
                  encode_tensor(source, item.index, format, in.stats, in.search));
    NARROW_TRY(overlay->replace(item.index, format, std::move(data)));
    const bool embedding = item.layer < 0 && tensor_role(t.name) == Role::kEmbedding;
    const std::int64_t first = item.layer >= 0 ? item.layer : source.config().n_layer;
    NARROW_ASSIGN(item.kl, probe.measure(overlay, first, embedding, progress));
    overlay->restore(item.index);
  }
  progress.end();

  DamageTable table;
  for (const Item& item : items) {
    const TensorInfo& t = source.tensors()[item.index];
    TensorDamage d;
    d.name = t.name;
    d.sensitivity = sensitivity(items, item);
    d.measured = item.measure;
    for (std::size_t f = 0; f < item.formats.size(); ++f) {
      const Format format = item.formats[f];
      d.types.push_back(
          {format, d.sensitivity * item.errors[f], TensorInfo{t.name, format, t.shape}.bytes()});
    }
    table.tensors.push_back(std::move(d));
  }
  return table;
}

}  // namespace narrow::pipeline
