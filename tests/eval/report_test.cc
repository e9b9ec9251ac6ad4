#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/rng.h"
#include "base/thread_team.h"
#include "eval/evaluate.h"
#include "eval/report/document.h"
#include "eval/report/sections.h"
#include "eval/report/stream.h"
#include "eval/report/weights.h"
#include "eval/report/worst_tokens.h"
#include "kernels/packed/layout.h"
#include "runtime/toy_source.h"
#include "testing/testing.h"

namespace narrow::eval::report {
namespace {

using runtime::ToySource;

std::size_t occurrences(const std::string& text, std::string_view what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

// What a browser would take for the document: up to the end of its script element.
nlohmann::json embedded(const std::string& html) {
  const std::string begin = "id=\"report-data\">";
  const std::size_t at = html.find(begin) + begin.size();
  return nlohmann::json::parse(html.substr(at, html.find("</script", at) - at), nullptr, false);
}

TEST(ReportDocument, HostileTextStaysDataInJsonAndPage) {
  const std::string texts[] = {
      "</script><script>alert(1)</script>", "<!--<script>",           "]]>&quot;&lt;\"'\\",
      "\xff\xfe broken \xe2\x82",           "\u2028\u2029\u0001\t\n", "{{data}}{{js}}"};
  Document plain;
  plain.title = "t";
  const std::string empty_page = to_html(to_json(plain));
  for (const std::string& text : texts) {
    Document d;
    d.title = d.subtitle = text;
    d.facts = {{text, text}};
    Table table;
    table.columns = {{text, false, NumberFormat::kPlain}};
    table.rows = {{text}, {std::vector<Span>{{text, "mark"}}}};
    Chart chart;
    chart.title = text;
    chart.x.categories = {text};
    chart.series = {{text, Mark::kBars, {}, {1.0}, {}, {text}}};
    d.sections = {{text, text, {text}, {table, chart}}};
    const std::string json = to_json(d), html = to_html(json);
    EXPECT_TRUE(std::all_of(json.begin(), json.end(), [](char c) { return c >= 0x20 && c < 0x7f; }));
    EXPECT_EQ(occurrences(html, "<script"), occurrences(empty_page, "<script"));
    EXPECT_EQ(occurrences(html, "</script"), occurrences(empty_page, "</script"));
    const nlohmann::json back = embedded(html);
    ASSERT_FALSE(back.is_discarded()) << text;
    EXPECT_EQ(back, nlohmann::json::parse(json));
    if (text.find('\xff') == std::string::npos) {
      EXPECT_EQ(back["sections"][0]["items"][0]["rows"][0][0], text);
    }
  }
}

TEST(ReportDocument, ThePageIsWholeAndLoadsNothing) {
  const std::string html = to_html(to_json(Document()));
  EXPECT_EQ(html.find("{{"), html.find("{{", html.find("Chart.js v")));  // the template's places are filled
  for (const char* needed : {"Chart.js v", "Permission is hereby granted", "default-src 'none'", "--page:"}) {
    EXPECT_NE(html.find(needed), std::string::npos) << needed;
  }
  for (const char* loads : {" src=", "<link", "@import", "url("}) {
    // Chart.js itself aside, which is code and not markup.
    const std::string before = html.substr(0, html.find("Chart.js v")),
                      after = html.substr(html.find("report-data"));
    EXPECT_EQ(before.find(loads), std::string::npos) << loads;
    EXPECT_EQ(after.find(loads), std::string::npos) << loads;
  }
}

TEST(ReportDocument, ValuesThatAreNotFiniteAreGaps) {
  Document d;
  Chart chart;
  chart.series = {{"s", Mark::kLine, {1, 2}, {std::nan(""), INFINITY}, {}, {}}};
  d.sections = {{"", "", {}, {chart}}};
  const auto j = nlohmann::json::parse(to_json(d));
  EXPECT_EQ(j["sections"][0]["items"][0]["series"][0]["y"], nlohmann::json({nullptr, nullptr}));
}

TEST(ReportText, InvalidBytesAndControlCharactersBecomeVisible) {
  struct Case {
    std::string bytes, shown;
  };
  for (const Case& c : {Case{"plain \u00e9\u20ac\U0001f600", "plain \u00e9\u20ac\U0001f600"},
                        Case{"a\nb", "a\u21b5b"}, Case{"\xe2\x82", "\\xe2\\x82"},
                        Case{"\xe2\x82\xac\x80", "\u20ac\\x80"}, Case{"\xc0\xaf", "\\xc0\\xaf"},  // overlong
                        Case{"\xed\xa0\x80", "\\xed\\xa0\\x80"},  // a surrogate
                        Case{"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},
                        Case{std::string("\0\x1b\x7f", 3), "\\x00\\x1b\\x7f"}, Case{"", ""}}) {
    EXPECT_EQ(visible_text(c.bytes), c.shown);
  }
}

TEST(ReportText, LayersAndKindsOfTensorNames) {
  const std::pair<const char*, std::pair<int, std::string>> cases[] = {
      {"blk.3.ffn_down.weight", {3, "ffn_down"}},        {"blk.12.attn_q.weight", {12, "attn_q"}},
      {"token_embd.weight", {-1, "token_embd"}},         {"output.weight", {-1, "output"}},
      {"blk.x.ffn_down.weight", {-1, "blk.x.ffn_down"}}, {"blk.7", {-1, "blk.7"}}};
  for (const auto& [name, expected] : cases) EXPECT_EQ(layer_and_kind(name), expected) << name;
}

TEST(ReportFront, HoldsWhatNoOtherFileBeats) {
  struct Case {
    std::uint64_t bytes;
    double kl;
    bool on_front;
  };
  const Case cases[] = {{100, 0.5, true},  {110, 0.5, false}, {120, 0.2, true},
                        {130, 0.3, false}, {140, 0.1, true},  {140, 0.1, true}};
  std::vector<ModelMeasurements> models;
  for (const Case& c : cases) {
    models.emplace_back();
    models.back().file_bytes = c.bytes;
    models.back().scores.kl_mean = c.kl;
  }
  find_front(models);
  for (std::size_t i = 0; i < models.size(); ++i) EXPECT_EQ(models[i].on_front, cases[i].on_front) << i;
}

TEST(StreamComparison, IsTheMeanRelativeErrorOverPositionsWhateverThePieces) {
  StreamComparison c(2, 2);
  const auto mine = c.model_tap(), theirs = c.reference_tap();
  // Two runs of the model, then the same of the reference. Layer 0: errors of 1/2 and 0; layer 1: none.
  const std::vector<float> r1 = {2, 0}, r2 = {0, 4}, m1 = {3, 0}, m2 = {0, 4};
  mine(0, m1), mine(1, r1), mine(0, m2), mine(1, r2);
  theirs(0, r1), theirs(1, r1), theirs(0, r2), theirs(1, r2);
  const std::vector<double> e = c.relative_error();
  ASSERT_EQ(e.size(), 2u);
  EXPECT_DOUBLE_EQ(e[0], std::sqrt(0.25 / 2));
  EXPECT_EQ(e[1], 0);
}

TEST(WorstTokens, KeepTheHighestDivergenceWithTextAndPredictions) {
  const std::vector<std::int32_t> tokens = {0, 1, 2, 3, 4, 1};
  WorstTokens worst(2);
  const double kl[] = {0.1, 0.7, 0.3, 0.7, 0.0};
  for (std::int64_t i = 1; i < 6; ++i) {
    std::vector<float> logits = {0, 1, 2, 3, 2}, reference = {5, 0, 0, 0, 0};
    ScoredPosition p{0, i, {}, logits, reference};
    p.score.kl = kl[i - 1];
    p.score.nll = -std::log(0.25);
    worst.observe(p);
  }
  const auto taken =
      worst.take(tokens, [](std::int32_t id) { return std::string(1, static_cast<char>('a' + id)); });
  ASSERT_EQ(taken.size(), 2u);
  EXPECT_EQ(taken[0].position, 2);  // the earlier of two equal ones
  EXPECT_EQ(taken[1].position, 4);
  EXPECT_EQ(taken[1].before, "abcd");
  EXPECT_EQ(taken[1].text, "e");
  EXPECT_EQ(taken[1].after, "b");
  EXPECT_NEAR(taken[0].p, 0.25, 1e-12);
  ASSERT_EQ(taken[0].predicted.size(), 3u);
  EXPECT_EQ(taken[0].predicted_text, (std::vector<std::string>{"d", "c", "e"}));  // ties: the lower id
  const double z = 1 + std::exp(1) + 2 * std::exp(2) + std::exp(3);
  EXPECT_NEAR(taken[0].predicted[0].p, std::exp(3) / z, 1e-12);
  EXPECT_EQ(taken[0].reference_predicted_text[0], "a");
}

TEST(LayerTap, SeesEveryLayerOfEveryRunAndAModelIsLikeItself) {
  const auto source = std::make_shared<ToySource>(8);
  ASSERT_OK_AND_ASSIGN(const auto model, runtime::LoadedModel::load(source));
  std::vector<std::int32_t> ids(40);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i % 11);
  Protocol protocol;
  protocol.n_ctx = 20;
  StreamComparison stream(2, 32);
  std::vector<std::int64_t> rows(2);
  runtime::SessionOptions a, b;
  a.n_ctx = b.n_ctx = 20;
  a.after_layer = [&, tap = stream.model_tap()](std::int64_t layer, std::span<const float> x) {
    rows[static_cast<std::size_t>(layer)] += static_cast<std::int64_t>(x.size()) / 32;
    tap(layer, x);
  };
  b.after_layer = stream.reference_tap();
  ASSERT_OK_AND_ASSIGN(const auto session, runtime::Session::create(model, a));
  ASSERT_OK_AND_ASSIGN(const auto reference, runtime::Session::create(model, b));
  std::vector<std::int64_t> seen;
  ASSERT_OK_AND_ASSIGN(const Evaluation e, evaluate(*session, 11, reference.get(), ids, protocol,
                                                    null_progress(), [&](const ScoredPosition& p) {
                                                      seen.push_back(p.token);
                                                      EXPECT_EQ(p.logits.size(), 11u);
                                                      EXPECT_EQ(p.score.kl, 0);
                                                    }));
  EXPECT_EQ(rows, (std::vector<std::int64_t>{e.tokens_fed, e.tokens_fed}));
  EXPECT_EQ(seen.size(), e.scores.size());
  EXPECT_EQ(seen.front(), 11);
  EXPECT_EQ(seen.back(), 39);
  EXPECT_EQ(stream.relative_error(), (std::vector<double>{0, 0}));
}

// The toy in another format: the same names and seeds, so the same weights before rounding.
TEST(CompareWeights, ErrorsAreThoseOfTheValuesAndSharesSumToOne) {
  const ToySource reference(16), model(16, Format::kQ4_0);
  std::vector<TensorDamage> first;
  for (const int threads : {1, 2}) {
    set_thread_count(threads);
    ASSERT_OK_AND_ASSIGN(const auto damages, compare_weights(model, reference, {}, null_progress()));
    if (first.empty()) first = damages;
    ASSERT_EQ(damages.size(), 15u);  // no norms
    double shares = 0;
    for (std::size_t i = 0; i < damages.size(); ++i) {
      const TensorDamage& d = damages[i];
      EXPECT_EQ(d.relative_rms, first[i].relative_rms);
      const std::size_t at = *model.find(d.name);
      const std::int64_t n = d.shape.rows(), k = d.shape.row_length();
      std::vector<float> x(static_cast<std::size_t>(n * k)), y(x.size());
      ASSERT_OK(reference.read_f32(at, 0, n, x.data()));
      ASSERT_OK(model.read_f32(at, 0, n, y.data()));
      double error = 0, weight = 0, largest = 0;
      for (std::size_t j = 0; j < x.size(); ++j) {
        const double e = static_cast<double>(x[j]) - static_cast<double>(y[j]);
        error += e * e;
        weight += static_cast<double>(x[j]) * static_cast<double>(x[j]);
        largest = std::max(largest, std::fabs(e));
      }
      EXPECT_NEAR(d.relative_rms, std::sqrt(error / weight), 1e-12) << d.name;
      EXPECT_EQ(d.max_abs_error, largest);
      EXPECT_TRUE(std::isnan(d.output_error));
      EXPECT_EQ(d.type, Format::kQ4_0);
      shares += d.kl_share;
    }
    EXPECT_NEAR(shares, 1, 1e-12);
  }
  set_thread_count(0);
  ASSERT_OK_AND_ASSIGN(const auto none, compare_weights(reference, reference, {}, null_progress()));
  for (const TensorDamage& d : none) EXPECT_EQ(d.relative_rms + d.kl_share, 0) << d.name;
}

TEST(CompareWeights, StatisticsWeighTheInputs) {
  const ToySource reference(16), model(16, Format::kQ4_0);
  std::vector<float> one(64, 0.0f), wrong(63, 1.0f);
  one[5] = 2.0f;
  const std::string name = "blk.0.attn_q.weight";
  const auto only = [&](const std::vector<float>& values) {
    return [&](const std::string& tensor) {
      return tensor == name ? InputStatistics{values, {}} : InputStatistics{};
    };
  };
  ASSERT_OK_AND_ASSIGN(const auto damages, compare_weights(model, reference, only(one), null_progress()));
  const std::size_t at = *model.find(name);
  std::vector<float> x(64), y(64);
  double error = 0, weight = 0;
  for (std::int64_t r = 0; r < 64; ++r) {
    ASSERT_OK(reference.read_f32(at, r, r + 1, x.data()));
    ASSERT_OK(model.read_f32(at, r, r + 1, y.data()));
    const double w = x[5], e = w - static_cast<double>(y[5]);
    error += e * e;
    weight += w * w;
  }
  for (const TensorDamage& d : damages) {
    if (d.name == name) {
      EXPECT_NEAR(d.output_error, std::sqrt(error / weight), 1e-12);
    } else {
      EXPECT_TRUE(std::isnan(d.output_error)) << d.name;
    }
  }
  const auto refused = compare_weights(model, reference, only(wrong), null_progress());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.error().message.find("63 inputs for tensor " + name), std::string::npos)
      << refused.error().message;
}

TEST(CompareWeights, NamesWhatDoesNotBelongToTheReference) {
  const ToySource reference(16);
  struct Case {
    std::function<void(ToySource&)> change;
    const char* says;
  };
  for (const Case& c : {Case{[](ToySource& s) { s.settings().arch = "qwen2"; }, "architecture is qwen2"},
                        Case{[](ToySource& s) { s.settings().n_vocab = 12; }, "vocabulary is 12"},
                        Case{[](ToySource& s) { s.settings().n_layer = 3; }, "number of layers is 3"},
                        Case{[](ToySource& s) {
                               s.reshape("blk.1.ffn_up.weight", {95, 64});
                             },
                             "blk.1.ffn_up.weight"},
                        Case{[](ToySource& s) {
                               s.add("blk.1.extra.weight", {4, 64});
                             },
                             "blk.1.extra.weight"}}) {
    ToySource model(16);
    c.change(model);
    const Status s = check_same_shapes(model, reference);
    ASSERT_FALSE(s.ok()) << c.says;
    EXPECT_EQ(s.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(s.error().message.find(c.says), std::string::npos) << s.error().message;
  }
  EXPECT_OK(check_same_shapes(ToySource(16, Format::kQ8_0), reference));
}

TEST(Advice, IsALargerTypeThatHelps) {
  ToySource reference(16), model(16, Format::kQ4_0);
  const std::string wide = "blk.0.wide.weight";
  reference.add(wide, {64, 512});
  model.add(wide, {64, 512}, Format::kQ4_K);
  ASSERT_OK_AND_ASSIGN(const auto damages, compare_weights(model, reference, {}, null_progress()));
  ASSERT_OK_AND_ASSIGN(const auto advice, advise(model, reference, damages, {}, null_progress()));
  ASSERT_FALSE(advice.empty());
  for (std::size_t i = 0; i < advice.size(); ++i) {
    const Advice& a = advice[i];
    const auto d =
        std::find_if(damages.begin(), damages.end(), [&](const auto& x) { return x.name == a.tensor; });
    ASSERT_NE(d, damages.end());
    EXPECT_EQ(a.from, a.tensor == wide ? Format::kQ4_K : Format::kQ4_0);
    EXPECT_EQ(a.to, a.tensor == wide ? Format::kQ5_K : Format::kQ5_0) << a.tensor;
    EXPECT_EQ(a.more_bytes, d->shape.elements() / 8);  // a bit more per weight
    EXPECT_NEAR(a.error_now, d->relative_rms, 0.1 * d->relative_rms);
    EXPECT_LT(a.error_then, 0.7 * a.error_now);
    EXPECT_LT(a.kl_change, 0);
    EXPECT_GE(a.kl_change, -d->kl_share);
    if (i > 0) {
      EXPECT_GE(a.kl_change, advice[i - 1].kl_change);
    }
  }
}

// Weights that were stored before lie on levels: what is read off the blocks as scale and level means the
// same numbers as the decoder's.
TEST(CloseUp, StoredWeightsLieOnTheLevelsOfEveryFormat) {
  for (const kernels::packed::Layout& l : kernels::packed::kLayouts) {
    const std::string name(format_info(l.format).name);
    ToySource model;
    model.add("blk.0.probe.weight", {64, 512}, l.format);
    ASSERT_OK_AND_ASSIGN(const CloseUp c, close_up(model, model, "blk.0.probe.weight", {}));
    ASSERT_FALSE(c.levels.empty()) << name;
    EXPECT_EQ(c.reference.counts, c.stored.counts);
    const auto weights = static_cast<std::uint64_t>(64 * 512);
    EXPECT_EQ(std::accumulate(c.level_counts.begin(), c.level_counts.end(), std::uint64_t{0}), weights);
    const double width =
        (c.in_levels.high - c.in_levels.low) / static_cast<double>(c.in_levels.counts.size());
    std::uint64_t on_levels = 0, all = 0;
    for (std::size_t bin = 0; bin < c.in_levels.counts.size(); ++bin) {
      const double low = c.in_levels.low + static_cast<double>(bin) * width;
      all += c.in_levels.counts[bin];
      for (const double level : c.levels) {
        // The division is rounded: a level at the edge of a bin may fall into the one before.
        if (level > low - 1e-3 && level < low + width + 1e-3) {
          on_levels += c.in_levels.counts[bin];
          break;
        }
      }
    }
    EXPECT_GT(all, weights / 2) << name;  // but for blocks whose scale is 0
    EXPECT_EQ(on_levels, all) << name;
    // The same number of times as the codes say.
    if (all == weights && width < 0.3) {
      for (std::size_t i = 1; i + 1 < c.levels.size(); ++i) {
        std::uint64_t near = 0;
        for (std::size_t bin = 0; bin < c.in_levels.counts.size(); ++bin) {
          const double middle = c.in_levels.low + (static_cast<double>(bin) + 0.5) * width;
          if (std::fabs(middle - c.levels[i]) < 0.5) near += c.in_levels.counts[bin];
        }
        EXPECT_EQ(near, c.level_counts[i]) << name << " level " << c.levels[i];
      }
    }
  }
  const auto missing = close_up(ToySource(), ToySource(), "nothing", {});
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
}

TEST(Describe, EveryChartHasSomethingToDraw) {
  const ToySource reference(16), model(16, Format::kQ4_0);
  Measurements m;
  for (const char* name : {"a", "b"}) {
    ModelMeasurements one;
    one.name = name;
    one.scores.kl_mean = one.scores.kl_median = 0.1;
    ASSERT_OK_AND_ASSIGN(one.tensors, compare_weights(model, reference, {}, null_progress()));
    one.stream_error = {0.1, 0.2};
    ASSERT_OK_AND_ASSIGN(const CloseUp c, close_up(model, reference, one.tensors[1].name, {}));
    one.close_ups = {c};
    m.models.push_back(std::move(one));
  }
  // A file compared with itself has no error anywhere.
  ModelMeasurements same;
  same.name = "same";
  ASSERT_OK_AND_ASSIGN(same.tensors, compare_weights(reference, reference, {}, null_progress()));
  same.stream_error = {0, 0};
  m.models.push_back(std::move(same));
  find_front(m.models);
  std::size_t charts = 0;
  for (const Section& s : describe(m).sections) {
    for (const auto& item : s.items) {
      if (const auto* table = std::get_if<Table>(&item)) {
        for (const auto& row : table->rows) EXPECT_EQ(row.size(), table->columns.size()) << s.title;
        continue;
      }
      const auto& chart = std::get<Chart>(item);
      ++charts;
      ASSERT_FALSE(chart.series.empty()) << s.title;
      for (const Series& one : chart.series) {
        EXPECT_EQ(one.y.size(), chart.x.categories.empty() ? one.x.size() : chart.x.categories.size())
            << one.name;
        EXPECT_TRUE(std::any_of(one.y.begin(), one.y.end(), [](double v) { return std::isfinite(v); }))
            << s.title << ": " << chart.title << ": " << one.name;
      }
    }
  }
  EXPECT_GT(charts, 8u);
}

}  // namespace
}  // namespace narrow::eval::report
