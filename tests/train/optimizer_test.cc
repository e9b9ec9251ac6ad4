#include "train/optimizer.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "testing/testing.h"
#include "train/schedule.h"

namespace narrow::train {
namespace {

at::Tensor tensor_of(const nlohmann::json& values, const std::vector<std::int64_t>& shape) {
  return at::tensor(values.get<std::vector<float>>()).reshape(shape).clone();
}

at::Tensor leaf(at::Tensor t) { return t.requires_grad_(true); }

struct Golden {
  nlohmann::json json =
      nlohmann::json::parse(testing::read_file(std::filesystem::path(NARROW_GOLDEN) / "adamw.json"));
  AdamWOptions options() const { return {json["beta1"], json["beta2"], json["eps"], true}; }
  std::vector<Parameter> parameters() const {
    std::vector<Parameter> out;
    for (const nlohmann::json& p : json["parameters"]) {
      out.push_back({p["name"], leaf(tensor_of(p["start"], p["shape"])), p["lr_scale"], p["weight_decay"]});
    }
    return out;
  }
  void set_gradients(const AdamW& adamw, std::size_t step) const {
    for (const Parameter& p : adamw.parameters()) {
      at::Tensor t = p.tensor;
      const nlohmann::json& g = json["steps"][step]["gradients"];
      t.mutable_grad() = g.contains(p.name) ? tensor_of(g[p.name], t.sizes().vec()) : at::Tensor();
    }
  }
};

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(AdamW, AgreesWithTorch) {
  const Golden golden;
  ASSERT_OK_AND_ASSIGN(AdamW adamw, AdamW::create(golden.parameters(), golden.options()));
  for (std::size_t step = 0; step < golden.json["steps"].size(); ++step) {
    golden.set_gradients(adamw, step);
    const nlohmann::json& expected = golden.json["steps"][step];
    const double norm = adamw.gradient_norm();
    EXPECT_NEAR(norm, expected["norm"].get<double>(), 1e-6 * norm);
    adamw.step(golden.json["lr"], clip_scale(norm, golden.json["max_norm"]));
    for (const Parameter& p : adamw.parameters()) {
      const at::Tensor after = tensor_of(expected["after"][p.name], p.tensor.sizes().vec());
      EXPECT_LE(largest_difference(p.tensor.detach(), after), 3e-7) << p.name << " after step " << step;
    }
  }
  EXPECT_EQ(adamw.steps(), 10);
}

TEST(AdamW, StateGoesOnExactly) {
  const Golden golden;
  ASSERT_OK_AND_ASSIGN(AdamW whole, AdamW::create(golden.parameters(), golden.options()));
  ASSERT_OK_AND_ASSIGN(AdamW first, AdamW::create(golden.parameters(), golden.options()));
  const auto run = [&](AdamW& a, std::size_t from, std::size_t to) {
    for (std::size_t step = from; step < to; ++step) {
      golden.set_gradients(a, step);
      a.step(1e-2);
    }
  };
  run(whole, 0, 10);
  run(first, 0, 6);
  std::map<std::string, at::Tensor> saved;
  for (const NamedTensor& t : first.state()) saved[t.name] = t.tensor.clone();
  std::vector<Parameter> rest = golden.parameters();
  for (std::size_t i = 0; i < rest.size(); ++i) {
    rest[i].tensor = leaf(first.parameters()[i].tensor.detach().clone());
  }
  ASSERT_OK_AND_ASSIGN(AdamW second, AdamW::create(rest, golden.options()));
  ASSERT_OK(second.load_state(saved));
  run(second, 6, 10);
  for (std::size_t i = 0; i < rest.size(); ++i) {
    EXPECT_TRUE(at::equal(second.parameters()[i].tensor, whole.parameters()[i].tensor)) << rest[i].name;
  }
  saved.erase("adamw.v.gains");
  const Status lacks = second.load_state(saved);
  ASSERT_FALSE(lacks.ok());
  EXPECT_NE(lacks.error().message.find("adamw.v.gains"), std::string::npos);
}

// Large enough for several threads, odd in length, in all combinations of dtypes.
TEST(AdamW, SameOnAnyNumberOfThreads) {
  const int threads = at::get_num_threads();
  at::manual_seed(3);
  const at::Tensor start = at::randn({200003}), g1 = at::randn({200003}), g2 = at::randn({200003});
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    std::vector<at::Tensor> results;
    std::vector<double> norms;
    for (const int n : {1, 3}) {
      at::set_num_threads(n);
      at::Tensor p = leaf(start.to(dtype, false, true));
      ASSERT_OK_AND_ASSIGN(AdamW adamw, AdamW::create({{"p", p, 1, 0.1}}));
      for (const at::Tensor& g : {g1, g2}) {
        p.mutable_grad() = g.to(dtype);
        norms.push_back(adamw.gradient_norm());
        adamw.step(1e-2);
      }
      results.push_back(p.detach());
    }
    EXPECT_TRUE(at::equal(results[0], results[1]));
    EXPECT_EQ(norms[0], norms[2]);
    EXPECT_NEAR(norms[0], g1.to(at::kDouble).norm().item<double>(),
                norms[0] * (dtype == at::kFloat ? 1e-9 : 1e-3));
    // The same update in torch's operations, in fp64.
    const at::Tensor a = g1.to(dtype).to(at::kDouble), b = g2.to(dtype).to(at::kDouble);
    at::Tensor w = start.to(dtype).to(at::kDouble), m = 0.1 * a, v = 0.001 * a * a;
    w = w * (1 - 1e-3) - 1e-2 * (m / 0.1) / ((v / 0.001).sqrt() + 1e-8);
    m = 0.9 * m + 0.1 * b;
    v = 0.999 * v + 0.001 * b * b;
    w = w * (1 - 1e-3) - 1e-2 * (m / (1 - 0.81)) / ((v / (1 - 0.999 * 0.999)).sqrt() + 1e-8);
    const at::Tensor error = (results[0].to(at::kDouble) - w).abs() / (w.abs() + 1);
    EXPECT_LT(error.max().item<double>(), dtype == at::kFloat ? 1e-6 : 4.1e-3);
  }
  at::set_num_threads(threads);
}

// bf16 has 8 bits: a step of 1e-5 at 1 is lost in it, unless a master copy keeps it.
TEST(AdamW, MasterWeightsKeepSmallSteps) {
  for (const bool master : {false, true}) {
    at::Tensor p = leaf(at::ones({4}, at::kBFloat16));
    AdamWOptions options;
    options.master_weights = master;
    ASSERT_OK_AND_ASSIGN(AdamW adamw, AdamW::create({{"p", p}}, options));
    for (int i = 0; i < 1000; ++i) {
      p.mutable_grad() = at::ones({4}, at::kBFloat16);
      adamw.step(1e-5);
    }
    EXPECT_NEAR(p[0].item<float>(), master ? 0.99f : 1.0f, 2e-3f) << master;
    EXPECT_EQ(adamw.state().size(), master ? 4u : 3u);
  }
}

TEST(AdamW, SaysWhichGradientIsBad) {
  at::Tensor a = leaf(at::ones({3})), b = leaf(at::ones({3}));
  ASSERT_OK_AND_ASSIGN(AdamW adamw, AdamW::create({{"a", a}, {"b", b}}));
  a.mutable_grad() = at::ones({3});
  b.mutable_grad() = at::ones({3});
  EXPECT_EQ(adamw.bad_gradient(), "");
  b.mutable_grad()[1] = std::nanf("");
  EXPECT_EQ(adamw.bad_gradient(), "b");
  EXPECT_FALSE(std::isfinite(adamw.gradient_norm()));
  adamw.zero_gradients();
  EXPECT_EQ(adamw.gradient_norm(), 0);
  EXPECT_FALSE(a.grad().defined());
}

TEST(AdamW, RefusesBadParameters) {
  const auto error = [](std::vector<Parameter> p, AdamWOptions o = {}) {
    const auto r = AdamW::create(std::move(p), o);
    return r.ok() ? std::string() : r.error().message;
  };
  const at::Tensor t = leaf(at::ones({4, 3}));
  EXPECT_EQ(error({{"x", t}}), "");
  EXPECT_NE(error({{"x", t}, {"x", t}}).find("'x' is there twice"), std::string::npos);
  EXPECT_NE(error({{"y", leaf(at::ones({4, 3}).t())}}).find("'y'"), std::string::npos);
  EXPECT_NE(error({{"z", at::ones({4}, at::kDouble)}}).find("'z'"), std::string::npos);
  EXPECT_NE(error({{"x", t}}, {1.0, 0.9, 1e-8, true}).find("betas"), std::string::npos);
}

TEST(Schedule, RisesAndFalls) {
  const Schedule s = {Decay::kCosine, 4, 21, 0.1};
  EXPECT_DOUBLE_EQ(s.factor(0), 0.2);
  EXPECT_DOUBLE_EQ(s.factor(3), 0.8);
  EXPECT_DOUBLE_EQ(s.factor(4), 1);
  EXPECT_DOUBLE_EQ(s.factor(12), 0.55);  // the middle
  EXPECT_NEAR(s.factor(8), 0.1 + 0.45 * (1 + std::sqrt(0.5)), 1e-12);
  EXPECT_DOUBLE_EQ(s.factor(20), 0.1);
  EXPECT_DOUBLE_EQ(s.factor(1000), 0.1);
  const Schedule linear = {Decay::kLinear, 0, 11, 0};
  EXPECT_DOUBLE_EQ(linear.factor(0), 1);
  EXPECT_DOUBLE_EQ(linear.factor(7), 0.3);
  EXPECT_DOUBLE_EQ(linear.factor(10), 0);
  const Schedule constant = {Decay::kConstant, 1, 10, 0.5};
  EXPECT_DOUBLE_EQ(constant.factor(0), 0.5);
  EXPECT_DOUBLE_EQ(constant.factor(9), 1);
  EXPECT_DOUBLE_EQ((Schedule{Decay::kCosine, 0, 1, 0}).factor(0), 1);  // one step, no division by zero
  for (const Decay d : {Decay::kConstant, Decay::kLinear, Decay::kCosine})
    EXPECT_EQ(decay_named(name_of(d)), d);
  EXPECT_FALSE(decay_named("cosin"));
}

}  // namespace
}  // namespace narrow::train
