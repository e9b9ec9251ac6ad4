// Gradients of every node: against PyTorch's (golden/make_nodes.py) and against finite differences of the
// surrogate that a straight-through gradient stands for: rounding held fixed, so that inside of the range a
// code is its place plus a constant, and outside a constant. All in fp64; parameters are fp32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "formats/grid.h"
#include "train/nodes/activation.h"
#include "train/nodes/affine.h"
#include "train/nodes/block_weight.h"
#include "train/nodes/cache.h"
#include "train/nodes/int8_row_weight.h"
#include "train/nodes/round_to_grid.h"

namespace narrow::train {
namespace {

using Values = std::vector<double>;

const nlohmann::json& golden() {
  static const nlohmann::json values = [] {
    std::ifstream in(std::string(NARROW_GOLDEN) + "/nodes.json");
    return nlohmann::json::parse(in);
  }();
  return values;
}

at::Tensor fp64(const nlohmann::json& v, at::IntArrayRef shape) {
  return at::tensor(v.get<Values>(), at::kDouble).view(shape).clone();
}

at::Tensor random_doubles(at::IntArrayRef shape, std::uint64_t seed, double scale = 1) {
  Rng rng(seed);
  at::Tensor x = at::empty(shape, at::kDouble);
  for (std::int64_t i = 0; i < x.numel(); ++i)
    x.data_ptr<double>()[i] = scale * static_cast<double>(rng.normal());
  return x;
}

Values listed(const at::Tensor& t) {
  const at::Tensor x = t.detach().to(at::kDouble).contiguous();
  return {x.data_ptr<double>(), x.data_ptr<double>() + x.numel()};
}

void expect_near(const at::Tensor& got, const Values& want, double tolerance, const char* what) {
  const Values values = listed(got);
  ASSERT_EQ(values.size(), want.size()) << what;
  double size = 1e-3;
  for (const double v : want) size = std::max(size, std::fabs(v));
  for (std::size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(values[i], want[i], tolerance * size) << what << " " << i;
}

// value = S (place + off - Z) + M with place = (x - M) / S + Z inside, S (code - Z) + M outside.
struct Surrogate {
  Values x, scale, zero, min;                        // x per element, the others per group
  std::function<std::size_t(std::size_t)> group_of;  // of an element
  double reach_low = 0, reach_high = 0;              // of codes
  Values c;                                          // loss = sum of c * value
  // Fixed at the start:
  Values code, off;
  std::vector<bool> inside;

  void fix(const Values& value) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t g = group_of(i);
      code.push_back(std::round((value[i] - min[g]) / scale[g] + zero[g]));
      const double place = (x[i] - min[g]) / scale[g] + zero[g];
      inside.push_back(place >= reach_low && place <= reach_high);
      off.push_back(code[i] - place);
    }
  }
  double loss() const {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::size_t g = group_of(i);
      const double place = inside[i] ? (x[i] - min[g]) / scale[g] + zero[g] + off[i] : code[i];
      sum += c[i] * (scale[g] * (place - zero[g]) + min[g]);
    }
    return sum;
  }
  // Central; the loss is linear in each, so that steps may be large.
  Values differences(Values Surrogate::*of) {
    Values out;
    for (double& v : this->*of) {
      const double at = v, h = 1e-2 * (at == 0 ? 1 : std::fabs(at));
      v = at + h;
      const double up = loss();
      v = at - h;
      const double down = loss();
      v = at;
      out.push_back((up - down) / (2 * h));
    }
    return out;
  }
};

constexpr double kTight = 1e-6;   // gradients of fp32 parameters are fp32
constexpr double kDigits = 2e-8;  // the golden values have nine digits

TEST(NodeGradients, GridsEqualPyTorch) {
  for (const auto& g : golden()["grids"]) {
    const std::string name = g["format"];
    SCOPED_TRACE(name);
    const std::int64_t n = g["n"], k = g["k"], group = g["group"];
    const at::Tensor w = fp64(g["w"], {n, k}).requires_grad_(true);
    const bool has_min = !g["grad_min"].empty();
    const at::Tensor scale = fp64(g["scale"], {n, k / group}).to(at::kFloat).requires_grad_(true);
    const at::Tensor min = fp64(g["min"], {n, k / group}).to(at::kFloat).requires_grad_(has_min);
    const ToGrid to{
        formats::grid_codec(find_format(name)->format), group, scale.detach(), min.detach(), scale, min};
    const at::Tensor y = round_to_grid(w, to);
    expect_near(y, g["value"], kDigits, "value");
    y.backward(fp64(g["c"], {n, k}));
    expect_near(w.grad(), g["grad_w"], kDigits, "w");
    expect_near(scale.grad(), g["grad_scale"], kTight, "scale");
    if (has_min) expect_near(min.grad(), g["grad_min"], kTight, "min");
  }
}

TEST(NodeGradients, AffineEqualsPyTorch) {
  for (const auto& g : golden()["affine"]) {
    const std::string mapping = g["mapping"], scope = g["scope"];
    SCOPED_TRACE(mapping + " " + scope);
    const std::int64_t m = g["m"], k = g["k"];
    formats::AffineSpec spec;
    spec.bits = g["bits"];
    spec.mapping = mapping == "symmetric" ? formats::AffineMapping::kSymmetric
                   : mapping == "min"     ? formats::AffineMapping::kMin
                                          : formats::AffineMapping::kZeroPoint;
    spec.scope = scope == "tensor" ? formats::AffineScope::kTensor
                 : scope == "row"  ? formats::AffineScope::kRow
                                   : formats::AffineScope::kGroup;
    spec.group = g["group"];
    const auto node =
        *AffineNode::create(m, k, {.spec = spec, .mode = AffineMode::kLearned, .scaled_gradient = false});
    const bool symmetric = mapping == "symmetric";
    ASSERT_TRUE(node->set_range(g["scale"].get<std::vector<float>>(),
                                symmetric ? std::vector<float>() : g["offset"].get<std::vector<float>>())
                    .ok());
    const at::Tensor x = fp64(g["x"], {m, k}).requires_grad_(true);
    const at::Tensor y = node->apply(x);
    expect_near(y, g["value"], kDigits, "value");
    y.backward(fp64(g["c"], {m, k}));
    expect_near(x.grad(), g["grad_x"], kDigits, "x");
    expect_near(node->parameters()[0].tensor.grad(), g["grad_scale"], kTight, "scale");
    if (!symmetric) expect_near(node->parameters()[1].tensor.grad(), g["grad_offset"], kTight, "offset");
  }
}

TEST(NodeGradients, StaticActivationsEqualPyTorch) {
  for (const auto& g : golden()["activations"]) {
    const bool asymmetric = g["mapping"] == "zero_point";
    SCOPED_TRACE(asymmetric);
    const std::int64_t m = g["m"], k = g["k"];
    ActivationOptions options{
        .range = ActivationRange::kLearned, .asymmetric = asymmetric, .scaled_gradient = false};
    options.scale = g["scale"][0].get<float>();
    options.zero = asymmetric ? static_cast<std::int32_t>(g["offset"][0].get<float>()) : 0;
    const auto node = *Int8Activation::create(k, options);
    const at::Tensor x = fp64(g["x"], {m, k}).requires_grad_(true);
    const at::Tensor y = node->apply(x);
    expect_near(y, g["value"], kDigits, "value");
    y.backward(fp64(g["c"], {m, k}));
    expect_near(x.grad(), g["grad_x"], kDigits, "x");
    expect_near(node->parameters()[0].tensor.grad(), g["grad_scale"], kTight, "scale");
    if (asymmetric) expect_near(node->parameters()[1].tensor.grad(), g["grad_offset"], kTight, "zero point");
  }
}

TEST(NodeGradients, BlockWeightsEqualFiniteDifferences) {
  const at::Tensor start = random_doubles({2, 256}, 1, 0.05).to(at::kFloat), c = random_doubles({2, 256}, 2);
  for (const FormatInfo& f : all_formats()) {
    const formats::GridCodec* codec = formats::grid_codec(f.format);
    if (codec == nullptr) continue;
    SCOPED_TRACE(f.name);
    const std::size_t row = row_bytes(f.format, 256);
    std::vector<std::byte> bytes(2 * row);
    for (int r = 0; r < 2; ++r) {
      f.encode(start.data_ptr<float>() + 256 * r, bytes.data() + static_cast<std::size_t>(r) * row, 256, {});
    }
    const auto node = *BlockWeight::create(f.format, bytes, 2, 256,
                                           {.scales = BlockScales::kLearned, .scaled_gradient = false});
    const at::Tensor w = random_doubles({2, 256}, 3, 0.07).requires_grad_(true);  // some beyond the range
    const at::Tensor y = node->apply(w);
    y.backward(c);
    Surrogate s;
    s.x = listed(w);
    s.scale = listed(node->parameters()[0].tensor);
    s.min =
        node->parameters().size() > 1 ? listed(node->parameters()[1].tensor) : Values(s.scale.size(), 0.0);
    s.zero.assign(s.scale.size(), 0.0);
    s.group_of = [&](std::size_t i) { return i / static_cast<std::size_t>(codec->group); };
    const auto& levels = codec->levels;
    s.reach_low = static_cast<double>(levels[0] - (levels[1] - levels[0]) / 2);
    s.reach_high = static_cast<double>(levels.back() + (levels.back() - levels[levels.size() - 2]) / 2);
    s.c = listed(c);
    s.fix(listed(y));
    expect_near(w.grad(), s.differences(&Surrogate::x), 1e-7, "w");
    expect_near(node->parameters()[0].tensor.grad(), s.differences(&Surrogate::scale), 1e-5, "scale");
    if (node->parameters().size() > 1) {
      expect_near(node->parameters()[1].tensor.grad(), s.differences(&Surrogate::min), 1e-5, "min");
    }
    // LSQ's factor, and its absence in the gradient of w.
    const auto scaled = *BlockWeight::create(f.format, bytes, 2, 256, {.scales = BlockScales::kLearned});
    scaled->apply(w).backward(c);
    const double greatest =
        std::max(-static_cast<double>(levels.front()), static_cast<double>(levels.back()));
    const at::Tensor want = node->parameters()[0].tensor.grad() / std::sqrt(codec->group * greatest);
    expect_near(scaled->parameters()[0].tensor.grad(), listed(want), 1e-5, "scaled");
  }
}

TEST(NodeGradients, RowWeightsEqualFiniteDifferences) {
  const std::vector<std::int8_t> codes(2 * 50, 1);
  const std::vector<float> scales = {0.03125f, 0.0078125f};
  const auto node = *Int8RowWeight::create(codes, scales, 2, 50, {.learned = true, .scaled_gradient = false});
  const at::Tensor w = random_doubles({2, 50}, 4, 0.8).requires_grad_(true), c = random_doubles({2, 50}, 5);
  const at::Tensor y = node->apply(w);
  y.backward(c);
  Surrogate s{listed(w),
              {0.03125, 0.0078125},
              {0, 0},
              {0, 0},
              [](std::size_t i) { return i / 50; },
              -127.5,
              127.5,
              listed(c),
              {},
              {},
              {}};
  s.fix(listed(y));
  EXPECT_TRUE(std::count(s.inside.begin(), s.inside.end(), false) > 0);
  expect_near(w.grad(), s.differences(&Surrogate::x), 1e-7, "w");
  expect_near(node->parameters()[0].tensor.grad(), s.differences(&Surrogate::scale), 1e-5, "scale");
}

TEST(NodeGradients, ActivationsEqualFiniteDifferences) {
  const at::Tensor c = random_doubles({3, 40}, 6);
  for (const bool asymmetric : {false, true}) {
    ActivationOptions options{
        .range = ActivationRange::kLearned, .asymmetric = asymmetric, .scaled_gradient = false};
    options.scale = 0.0078125f;
    options.zero = asymmetric ? 21 : 0;
    const auto node = *Int8Activation::create(40, options);
    const at::Tensor x = random_doubles({3, 40}, 7).requires_grad_(true);
    const at::Tensor y = node->apply(x);
    y.backward(c);
    Surrogate s{listed(x),
                {0.0078125},
                {static_cast<double>(options.zero)},
                {0},
                [](std::size_t) { return 0u; },
                asymmetric ? -128.5 : -127.5,
                127.5,
                listed(c),
                {},
                {},
                {}};
    s.fix(listed(y));
    expect_near(x.grad(), s.differences(&Surrogate::x), 1e-7, "x");
    expect_near(node->parameters()[0].tensor.grad(), s.differences(&Surrogate::scale), 1e-5, "scale");
    if (asymmetric)
      expect_near(node->parameters()[1].tensor.grad(), s.differences(&Surrogate::zero), 1e-5, "zero");
  }
}

TEST(NodeGradients, DynamicRangesPassThemUnchanged) {
  const at::Tensor x = random_doubles({3, 64}, 8).requires_grad_(true), c = random_doubles({3, 64}, 9);
  const std::vector<std::shared_ptr<Node>> nodes = {
      *Int8Activation::create(64, {}), *Int8Activation::create(64, {.asymmetric = true, .outliers = {5}}),
      *Int8Activation::create(64, {.range = ActivationRange::kBlock}), *AffineNode::create(0, 64, {}),
      *CacheNode::create(Format::kQ8_0, 64)};
  for (const auto& node : nodes) {
    SCOPED_TRACE(node->describe());
    x.mutable_grad() = at::Tensor();
    node->apply(x).backward(c);
    EXPECT_LT((x.grad() - c).abs().max().item<double>(), 1e-6);
  }
}

}  // namespace
}  // namespace narrow::train
