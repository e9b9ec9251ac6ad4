#include "eval/report/sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace narrow::eval::report {
namespace {

using F = NumberFormat;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t kShownTensors = 15, kShownAdvice = 12;

std::string type_name(Format f) { return std::string(format_info(f).name); }
std::string megabytes(double bytes) { return fmt::format("{:.1f} MB", bytes / 1e6); }

Column text_column(std::string title) { return {std::move(title), false, F::kPlain}; }
Column number_column(std::string title, F format = F::kPlain) { return {std::move(title), true, format}; }

// A logarithmic axis has no place for 0 (a file compared with itself).
double above_zero(double x) { return x > 0 ? x : kNaN; }

bool any_finite(const std::vector<double>& values) {
  return std::any_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

std::vector<std::string> layer_names(std::size_t n) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < n; ++i) out.push_back(std::to_string(i));
  return out;
}

std::string types_text(const ModelMeasurements& m) {
  std::string out;
  for (const auto& [type, n] : m.types)
    out += fmt::format("{}{} x{}", out.empty() ? "" : ", ", type_name(type), n);
  return out;
}

// ---- all files together

Chart size_chart(const Measurements& m) {
  Chart c;
  c.title = "File size against KL divergence";
  c.note =
      "Down and to the left is better. The line joins the files that no other file beats in both. Bars: "
      "one standard error of the mean.";
  c.x = {"file size (MB)", F::kPlain, false, {}};
  c.y = {"mean KL divergence (nats)", F::kPlain, true, {}};
  std::vector<const ModelMeasurements*> order;
  for (const ModelMeasurements& one : m.models) order.push_back(&one);
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return a->file_bytes < b->file_bytes; });
  Series all, front;
  all.name = "files";
  all.mark = Mark::kPoints;
  front.name = "Pareto front";
  front.mark = Mark::kBareLine;
  for (const ModelMeasurements* one : order) {
    const double size = static_cast<double>(one->file_bytes) / 1e6, kl = above_zero(one->scores.kl_mean);
    all.x.push_back(size);
    all.y.push_back(kl);
    all.error.push_back(one->scores.kl_se);
    all.labels.push_back(one->name);
    if (!one->on_front) continue;
    front.x.push_back(size);
    front.y.push_back(kl);
  }
  c.series.push_back(std::move(all));
  if (front.x.size() > 1) c.series.push_back(std::move(front));
  return c;
}

Table files_table(const Measurements& m) {
  Table t;
  t.columns = {text_column("file"),         number_column("size", F::kBytes),
               number_column("bpw"),        number_column("perplexity"),
               number_column("±"),          number_column("mean KL"),
               number_column("±"),          number_column("same top token", F::kPercent),
               text_column("on the front"), text_column("types of the weight matrices")};
  const ScoreSummary& first = m.models.front().scores;
  t.rows.push_back({"(reference)",
                    static_cast<double>(m.reference_bytes),
                    m.reference_bpw,
                    first.reference_perplexity,
                    first.reference_perplexity_se,
                    {},
                    {},
                    {},
                    {},
                    {}});
  for (const ModelMeasurements& one : m.models) {
    const ScoreSummary& s = one.scores;
    t.rows.push_back({one.name, static_cast<double>(one.file_bytes), one.bpw, s.perplexity, s.perplexity_se,
                      s.kl_mean, s.kl_se, s.top1_agreement, one.on_front ? "yes" : "", types_text(one)});
  }
  return t;
}

Table quantile_table(const Measurements& m) {
  Table t;
  t.title = "Quantiles of the KL divergence";
  t.note = "And the root mean square of the change in the true token's probability.";
  t.columns = {text_column("file"),
               number_column("50 %"),
               number_column("90 %"),
               number_column("99 %"),
               number_column("99.9 %"),
               number_column("largest"),
               number_column("change of p", F::kPercent)};
  for (const ModelMeasurements& one : m.models) {
    const ScoreSummary& s = one.scores;
    t.rows.push_back({one.name, s.kl_median, s.kl_p90, s.kl_p99, s.kl_p999, s.kl_max, s.delta_p_rms});
  }
  return t;
}

Chart quantile_chart(const Measurements& m) {
  Chart c;
  c.title = "How the KL divergence is spread over positions";
  c.x = {"of the positions are below", F::kPlain, false, {"50 %", "90 %", "99 %", "99.9 %", "all"}};
  c.y = {"KL divergence (nats)", F::kPlain, true, {}};
  for (const ModelMeasurements& one : m.models) {
    const ScoreSummary& s = one.scores;
    Series line;
    line.name = one.name;
    for (const double v : {s.kl_median, s.kl_p90, s.kl_p99, s.kl_p999, s.kl_max})
      line.y.push_back(above_zero(v));
    if (any_finite(line.y)) c.series.push_back(std::move(line));
  }
  return c;
}

Chart stream_chart(const std::vector<const ModelMeasurements*>& models) {
  Chart c;
  c.title = "Error of the residual stream after each layer";
  c.note =
      "Root mean square over positions of |x - x_ref| / |x_ref|: where the line rises steeply, a layer adds "
      "much of the damage; where it falls, later layers outweigh it.";
  c.x = {"layer", F::kInteger, false, layer_names(models.front()->stream_error.size())};
  c.y = {"relative error", F::kPercent, false, {}};
  for (const ModelMeasurements* one : models) {
    Series line;
    line.name = one->name;
    line.y = one->stream_error;
    if (!line.y.empty()) c.series.push_back(std::move(line));
  }
  return c;
}

Section overview(const Measurements& m) {
  Section s;
  s.title = "Files";
  s.text = {fmt::format(
      "KL divergence is that of the file's next-token distribution from the reference's, over the "
      "whole vocabulary, at {} positions.",
      m.scored_tokens)};
  Chart sizes = size_chart(m);
  if (any_finite(sizes.series.front().y)) s.items.emplace_back(std::move(sizes));
  s.items.emplace_back(files_table(m));
  if (Chart c = quantile_chart(m); !c.series.empty()) s.items.emplace_back(std::move(c));
  if (m.models.size() > 1) {
    std::vector<const ModelMeasurements*> all;
    for (const ModelMeasurements& one : m.models) all.push_back(&one);
    if (Chart c = stream_chart(all); !c.series.empty()) s.items.emplace_back(std::move(c));
  }
  s.items.emplace_back(quantile_table(m));
  return s;
}

// ---- one file

// Kinds of tensors within layers, in the file's order.
std::vector<std::string> kinds_of(const ModelMeasurements& m) {
  std::vector<std::string> out;
  for (const TensorDamage& t : m.tensors) {
    if (t.layer >= 0 && std::find(out.begin(), out.end(), t.kind) == out.end()) out.push_back(t.kind);
  }
  return out;
}

// One series per kind of tensor, a value per layer.
template <class Value>
std::vector<Series> by_layer(const ModelMeasurements& m, Mark mark, const Value& value) {
  std::vector<Series> out;
  for (const std::string& kind : kinds_of(m)) {
    Series s;
    s.name = kind;
    s.mark = mark;
    s.y.assign(m.stream_error.size(), kNaN);
    for (const TensorDamage& t : m.tensors) {
      if (t.kind == kind && t.layer >= 0 && static_cast<std::size_t>(t.layer) < s.y.size()) {
        s.y[static_cast<std::size_t>(t.layer)] = value(t);
      }
    }
    if (any_finite(s.y)) out.push_back(std::move(s));
  }
  return out;
}

// A chart over layers of one number of every tensor.
template <class Value>
Chart layer_chart(const ModelMeasurements& m, std::string title, std::string y, Mark mark,
                  const Value& value) {
  Chart c;
  c.title = std::move(title);
  c.x = {"layer", F::kInteger, false, layer_names(m.stream_error.size())};
  c.y = {std::move(y), F::kPercent, false, {}};
  c.series = by_layer(m, mark, value);
  return c;
}

bool has_output_errors(const ModelMeasurements& m) {
  return std::any_of(m.tensors.begin(), m.tensors.end(),
                     [](const TensorDamage& t) { return std::isfinite(t.output_error); });
}

Section layers_section(const ModelMeasurements& m) {
  Section s;
  s.title = "Damage per layer";
  s.group = m.name;
  double outside = 0;
  for (const TensorDamage& t : m.tensors) outside += t.layer < 0 ? t.kl_share : 0;
  s.text = {fmt::format(
      "The estimated part of each weight matrix in the KL divergence: its squared relative {}, as a part of "
      "the sum "
      "over all. To second order the divergence is such a sum (Malinovskii et al. 2024, the linearity "
      "theorem of "
      "HIGGS), here with equal factors. Tensors outside of the layers have {:.1f} %.",
      has_output_errors(m) ? "output error on the calibration inputs" : "weight error", 100 * outside)};
  Chart shares = layer_chart(m, "Estimated part in the KL divergence", "part", Mark::kBars,
                             [](const TensorDamage& t) { return t.kl_share; });
  shares.stacked = true;
  if (outside < 1 && !shares.series.empty() && !m.stream_error.empty())
    s.items.emplace_back(std::move(shares));
  if (Chart c = stream_chart({&m}); !c.series.empty()) s.items.emplace_back(std::move(c));
  return s;
}

Section tensors_section(const ModelMeasurements& m) {
  Section s;
  s.title = "Damage per tensor";
  s.group = m.name;
  s.text = {
      "Weight error: root mean square of the change relative to the weights'. Where scales or rotations were "
      "folded into the weights, they differ from the reference's by more than rounding; then the residual "
      "stream, taken where nothing is folded, tells the truth."};
  Chart weights = layer_chart(m, "Weight error", "relative RMS error", Mark::kLine,
                              [](const TensorDamage& t) { return t.relative_rms; });
  if (!weights.series.empty()) s.items.emplace_back(std::move(weights));
  const bool outputs = has_output_errors(m);
  if (outputs) {
    Chart c = layer_chart(m, "Output error", "relative RMS error", Mark::kLine,
                          [](const TensorDamage& t) { return t.output_error; });
    c.note = "Of each matrix alone, for inputs with the second moments of the calibration text.";
    if (!c.series.empty()) s.items.emplace_back(std::move(c));
  }
  Table t;
  t.columns = {text_column("tensor"), text_column("type"), text_column("shape"),
               number_column("size", F::kBytes), number_column("weight error", F::kPercent)};
  if (outputs) t.columns.push_back(number_column("output error", F::kPercent));
  t.columns.push_back(number_column("largest error"));
  t.columns.push_back(number_column("part in KL", F::kPercent));
  std::vector<const TensorDamage*> order;
  for (const TensorDamage& d : m.tensors) order.push_back(&d);
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return a->kl_share > b->kl_share; });
  for (const TensorDamage* d : order) {
    const double bytes = static_cast<double>(TensorInfo{d->name, d->type, d->shape}.bytes());
    std::vector<Cell> row = {d->name, type_name(d->type), d->shape.text(), bytes, d->relative_rms};
    if (outputs) row.emplace_back(d->output_error);
    row.emplace_back(d->max_abs_error);
    row.emplace_back(d->kl_share);
    t.rows.push_back(std::move(row));
  }
  t.shown = kShownTensors;
  s.items.emplace_back(std::move(t));
  return s;
}

Section advice_section(const ModelMeasurements& m) {
  Section s;
  s.title = "Advice";
  s.group = m.name;
  s.text = {
      "What the next larger type would change, for the tensors where it changes most, in all or per byte. An "
      "estimate: the tensor's part in "
      "the "
      "KL divergence times what round-to-nearest in the new type takes off its squared error."};
  Table t;
  t.columns = {text_column("change"),
               number_column("size", F::kMoreBytes),
               number_column("KL", F::kMorePercent),
               number_column("KL per MB", F::kMorePercent),
               number_column("error now", F::kPercent),
               number_column("error then", F::kPercent)};
  for (const Advice& a : m.advice) {
    const auto [layer, kind] = layer_and_kind(a.tensor);
    const std::string name = layer < 0 ? kind : fmt::format("blk.{}.{}", layer, kind);
    const auto bytes = static_cast<double>(a.more_bytes);
    t.rows.push_back({fmt::format("{} from {} to {}", name, type_name(a.from), type_name(a.to)), bytes,
                      a.kl_change, a.kl_change / (bytes / 1e6), a.error_now, a.error_then});
  }
  t.shown = kShownAdvice;
  s.items.emplace_back(std::move(t));
  return s;
}

std::vector<Span> prediction_spans(const std::vector<Prediction>& predictions,
                                   const std::vector<std::string>& texts, std::int32_t truth) {
  std::vector<Span> out;
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    out.push_back({texts[i], predictions[i].token == truth ? "mark" : "strong"});
    out.push_back(
        {fmt::format(" {:.1f} %{}", 100 * predictions[i].p, i + 1 < predictions.size() ? "\n" : ""), "dim"});
  }
  return out;
}

Section worst_section(const ModelMeasurements& m) {
  Section s;
  s.title = "Worst tokens";
  s.group = m.name;
  s.text = {
      "The positions with the highest KL divergence. The marked token is the one that follows in the text; "
      "beside it what each model held for most likely, and how likely."};
  Table t;
  t.columns = {number_column("KL"),
               text_column("text"),
               text_column("reference"),
               text_column("this file"),
               number_column("p, reference", F::kPercent),
               number_column("p, this file", F::kPercent),
               number_column("token no.", F::kInteger)};
  for (const WorstToken& w : m.worst) {
    t.rows.push_back({w.kl, std::vector<Span>{{w.before, ""}, {w.text, "mark"}, {w.after, "dim"}},
                      prediction_spans(w.reference_predicted, w.reference_predicted_text, w.token),
                      prediction_spans(w.predicted, w.predicted_text, w.token), w.reference_p, w.p,
                      static_cast<double>(w.position)});
  }
  t.shown = 10;
  s.items.emplace_back(std::move(t));
  return s;
}

Series area_of(const Histogram& h, std::string name) {
  Series s;
  s.name = std::move(name);
  s.mark = Mark::kArea;
  const auto bins = static_cast<double>(h.counts.size());
  double sum = 0;
  for (const std::uint64_t n : h.counts) sum += static_cast<double>(n);
  for (std::size_t i = 0; i < h.counts.size(); ++i) {
    s.x.push_back(h.low + (static_cast<double>(i) + 0.5) * (h.high - h.low) / bins);
    s.y.push_back(sum > 0 ? static_cast<double>(h.counts[i]) / sum : 0);
  }
  return s;
}

Chart level_chart(const CloseUp& c) {
  Chart chart;
  chart.title = fmt::format("On the grid of {}", type_name(c.type));
  chart.note =
      "The reference's weights in units of their block's stored scale, and how often each storable level is "
      "used.";
  chart.x = {"level", F::kPlain, false, {}};
  chart.y = {"part of the weights per level", F::kPercent, false, {}};
  Series values = area_of(c.in_levels, "reference");
  // A level takes in what lies around it: as many bins as lie between two levels on average.
  const double width = (c.in_levels.high - c.in_levels.low) / static_cast<double>(c.in_levels.counts.size());
  const double spacing = (c.levels.back() - c.levels.front()) / static_cast<double>(c.levels.size() - 1);
  for (double& y : values.y) y *= spacing / width;
  chart.series.push_back(std::move(values));
  Series points;
  points.name = "stored";
  points.mark = Mark::kPoints;
  points.x = c.levels;
  double sum = 0;
  for (const std::uint64_t n : c.level_counts) sum += static_cast<double>(n);
  for (const std::uint64_t n : c.level_counts) points.y.push_back(sum > 0 ? static_cast<double>(n) / sum : 0);
  chart.series.push_back(std::move(points));
  return chart;
}

Chart input_chart(const CloseUp& c) {
  Chart chart;
  chart.title = "Inputs";
  chart.note = "Activations that meet this tensor, by input channel, from the quietest to the loudest.";
  chart.x = {"channels below (%)", F::kPlain, false, {}};
  chart.y = {"size", F::kPlain, true, {}};
  for (const auto& [name, values] :
       {std::pair("root mean square", &c.input_rms), std::pair("largest", &c.input_absmax)}) {
    Series line;
    line.name = name;
    line.mark = Mark::kBareLine;
    const auto last = static_cast<double>(std::max<std::size_t>(2, values->size()) - 1);
    for (std::size_t i = 0; i < values->size(); ++i) {
      line.x.push_back(100 * static_cast<double>(i) / last);
      line.y.push_back(above_zero((*values)[i]));
    }
    if (any_finite(line.y)) chart.series.push_back(std::move(line));
  }
  return chart;
}

Section close_up_section(const ModelMeasurements& m, const CloseUp& c) {
  Section s;
  s.title = "Values of " + c.tensor;
  s.group = m.name;
  Chart weights;
  weights.title = fmt::format("Weights ({})", type_name(c.type));
  weights.note = "Values outside are counted in the first and last bins.";
  weights.x = {"weight", F::kPlain, false, {}};
  weights.y = {"part of the weights", F::kPercent, false, {}};
  weights.series = {area_of(c.reference, "reference"), area_of(c.stored, "stored")};
  s.items.emplace_back(std::move(weights));
  if (c.levels.size() > 1) s.items.emplace_back(level_chart(c));
  if (!c.scales.counts.empty()) {
    Chart scales;
    scales.title = "Scales";
    scales.note = "Sizes of the step between levels, over the tensor's blocks.";
    scales.x = {"log10 of the scale", F::kPlain, false, {}};
    scales.y = {"part of the blocks", F::kPercent, false, {}};
    scales.series.push_back(area_of(c.scales, "scales"));
    s.items.emplace_back(std::move(scales));
  }
  if (Chart inputs = input_chart(c); !inputs.series.empty()) s.items.emplace_back(std::move(inputs));
  return s;
}

}  // namespace

Document describe(const Measurements& m) {
  Document d;
  d.title = m.title + ": quantized files against the reference";
  d.subtitle = m.protocol;
  d.facts = {{"Reference", fmt::format("{} ({}, {:.2f} bpw)", m.reference_path,
                                       megabytes(static_cast<double>(m.reference_bytes)), m.reference_bpw)},
             {"Architecture", m.architecture},
             {"Text", m.text_path}};
  if (!m.statistics_path.empty()) d.facts.emplace_back("Input statistics", m.statistics_path);
  d.sections.push_back(overview(m));
  for (const ModelMeasurements& one : m.models) {
    d.sections.push_back(layers_section(one));
    d.sections.push_back(tensors_section(one));
    if (!one.advice.empty()) d.sections.push_back(advice_section(one));
    if (!one.worst.empty()) d.sections.push_back(worst_section(one));
    for (const CloseUp& c : one.close_ups) d.sections.push_back(close_up_section(one, c));
  }
  d.measurements_json = to_json(m);
  return d;
}

}  // namespace narrow::eval::report
