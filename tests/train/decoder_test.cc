// The decoder against the logits of transformers, and its gradients against finite differences and PyTorch.
#include "train/decoder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "io/safetensors/reader.h"
#include "model/arch/registry.h"
#include "testing/testing.h"
#include "train/loss.h"

namespace narrow::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDense[] = {"gemma2",  "gemma3", "gpt2", "gpt_neox", "granite", "llama",  "llama3-rope",
                                  "mistral", "olmo2",  "phi3", "qwen2",    "qwen3",   "smollm3"};

fs::path folder_of(const std::string& model) { return testing::shared_data() / "tiny-models" / model; }

std::unique_ptr<Decoder> decoder_of(const std::string& model, at::ScalarType dtype = at::kFloat) {
  const auto source = model::ModelSource::open(folder_of(model));
  EXPECT_OK(source);
  if (!source.ok()) return nullptr;
  auto decoder = Decoder::create(**source, dtype);
  EXPECT_OK(decoder);
  return decoder.ok() ? std::move(*decoder) : nullptr;
}

at::Tensor golden(const std::string& model, const std::string& name) {
  const auto reader = io::safetensors::Reader::open(folder_of(model) / "golden.safetensors");
  EXPECT_OK(reader);
  const auto* t = reader->find(name);
  const bool ints = t->info.format == Format::kI64;
  const at::Tensor out = at::empty(t->info.shape.dims(), ints                             ? at::kLong
                                                         : t->info.format == Format::kI32 ? at::kInt
                                                                                          : at::kFloat);
  std::memcpy(out.data_ptr(), reader->view(*t).data, t->info.bytes());
  return out;
}

// Two windows of 24 tokens; golden/make_decoder.py makes the same.
at::Tensor two_windows(std::int64_t n_vocab) {
  const at::Tensor i = at::arange(48, at::kLong);
  return (i * i * 31 + 7 * i + 3).remainder(n_vocab).reshape({2, 24});
}

// Mean next-token cross-entropy.
at::Tensor loss_of(Decoder& d, const at::Tensor& tokens) {
  const std::int64_t t = tokens.size(1);
  const at::Tensor h = d.head_input(d.hidden(tokens));
  LossInput in;
  in.hidden = h.narrow(1, 0, t - 1).reshape({-1, d.config().n_embd});
  in.head_weight = d.head_weight();
  in.targets = tokens.narrow(1, 1, t - 1).reshape({-1});
  LossOptions o;
  o.kl_weight = 0;
  o.ce_weight = 1;
  o.logit_scale = d.config().logit_scale;
  o.softcap = d.config().final_softcap;
  return head_loss(in, o).value;
}

void train_all(Decoder& d) {
  for (auto& [name, w] : d.weights()) w.set_requires_grad(true);
}

TEST(Decoder, LogitsAreThoseOfTransformers) {
  NARROW_REQUIRE_SHARED();
  const at::NoGradGuard off;
  for (const char* model : kDense) {
    SCOPED_TRACE(model);
    const auto d = decoder_of(model);
    ASSERT_NE(d, nullptr);
    const at::Tensor ids = golden(model, "input_ids").to(at::kLong).reshape({1, -1});
    const at::Tensor want = golden(model, "logits");
    const at::Tensor got = d->logits(ids).reshape(want.sizes());
    EXPECT_LE((got - want).abs().max().item<double>(), 1e-3);
    EXPECT_GT(want.abs().max().item<double>(), 0.1);
  }
}

TEST(Decoder, ExpertsAreRefused) {
  NARROW_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto source, model::ModelSource::open(folder_of("mixtral")));
  const auto d = Decoder::create(*source);
  ASSERT_FALSE(d.ok());
  EXPECT_EQ(d.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(d.error().message.find("experts"), std::string::npos) << d.error().message;
}

// Along one random direction per tensor, in fp64: central differences of the loss.
TEST(Decoder, GradientsAreThoseOfFiniteDifferences) {
  NARROW_REQUIRE_SHARED();
  for (const char* model : kDense) {
    SCOPED_TRACE(model);
    const auto d = decoder_of(model, at::kDouble);
    ASSERT_NE(d, nullptr);
    train_all(*d);
    const at::Tensor tokens = two_windows(d->config().n_vocab);
    torch::autograd::backward({loss_of(*d, tokens)}, {});
    const at::NoGradGuard off;
    std::set<std::string> kinds;
    std::uint64_t seed = 0;
    for (auto& [name, w] : d->weights()) {
      // The first layer's and the last's stand for those between.
      const std::string last = "blk." + std::to_string(d->config().n_layer - 1) + ".";
      if (name.starts_with("blk.") && !name.starts_with("blk.0.") && !name.starts_with(last)) continue;
      ASSERT_TRUE(w.grad().defined()) << name;
      at::manual_seed(++seed);
      const at::Tensor direction = at::randn_like(w);
      const double step = 1e-5;
      const auto loss_at = [&](double by) {
        w.detach().add_(direction, by);
        const double loss = loss_of(*d, tokens).item<double>();
        w.detach().add_(direction, -by);
        return loss;
      };
      const double numeric = (loss_at(step) - loss_at(-step)) / (2 * step);
      const double analytic = (w.grad() * direction).sum().item<double>();
      EXPECT_NEAR(analytic, numeric, 1e-6 + 1e-5 * std::abs(numeric)) << name;
      kinds.insert(name.substr(name.rfind("blk.") == 0 ? name.find('.', 4) : 0));
    }
    EXPECT_GE(kinds.size(), 9u);
  }
}

nlohmann::json expected() {
  std::ifstream in(fs::path(NARROW_GOLDEN) / "decoder.json");
  return nlohmann::json::parse(in);
}

void expect_near(const nlohmann::json& want, const at::Tensor& got, double size, const std::string& what) {
  ASSERT_EQ(static_cast<std::int64_t>(want.size()), got.numel()) << what;
  for (std::int64_t i = 0; i < got.numel(); ++i) {
    EXPECT_NEAR(got[i].item<double>(), want[static_cast<std::size_t>(i)].get<double>(), 2e-5 * size + 1e-8)
        << what << " " << i;
  }
}

// PyTorch's own modules in fp64, against this decoder in fp32.
TEST(Decoder, LossAndGradientsAreThoseOfPyTorch) {
  NARROW_REQUIRE_SHARED();
  const nlohmann::json golden_values = expected();
  for (const auto& [model, want] : golden_values["models"].items()) {
    SCOPED_TRACE(model);
    const auto d = decoder_of(model);
    ASSERT_NE(d, nullptr);
    train_all(*d);
    const at::Tensor loss = loss_of(*d, two_windows(d->config().n_vocab));
    EXPECT_NEAR(loss.item<double>(), want["loss"].get<double>(), 1e-5);
    torch::autograd::backward({loss}, {});
    std::size_t compared = 0;
    for (const model::TensorRule& rule : model::tensor_map(d->config())) {
      if (rule.hf.size() != 1) continue;
      std::string hf = rule.hf[0];
      if (hf.starts_with('@')) hf = "model." + hf.substr(1);
      const auto it = want["gradients"].find(hf);
      if (it == want["gradients"].end()) continue;
      const at::Tensor g = d->weight(rule.name).grad().to(at::kDouble);
      const double norm = (*it)["norm"].get<double>();
      EXPECT_NEAR(g.norm().item<double>(), norm, 2e-5 * norm) << hf;
      if (g.dim() == 1) {
        expect_near((*it)["values"], g.narrow(0, 0, 6), norm, hf);
      } else {
        const at::Tensor columns = g.narrow(1, 0, 6);
        expect_near((*it)["sums"], columns.sum(0), norm, hf + " sums");
        expect_near((*it)["norms"], columns.norm(2, {0}), norm, hf + " norms");
      }
      ++compared;
    }
    EXPECT_EQ(compared, want["gradients"].size());
  }
}

// Recomputing layers changes no bit.
TEST(Decoder, CheckpointingGivesTheSameGradients) {
  NARROW_REQUIRE_SHARED();
  for (const char* model : {"llama", "gemma3"}) {
    const auto plain = decoder_of(model), lean = decoder_of(model);
    ASSERT_NE(plain, nullptr);
    ASSERT_NE(lean, nullptr);
    lean->set_checkpointing(true);
    for (Decoder* d : {plain.get(), lean.get()}) {
      train_all(*d);
      torch::autograd::backward({loss_of(*d, two_windows(d->config().n_vocab))}, {});
    }
    for (const auto& [name, w] : plain->weights()) {
      EXPECT_TRUE(at::equal(w.grad(), lean->weight(name).grad())) << model << " " << name;
    }
  }
}

// The sum of two micro-batches is the whole batch.
TEST(Decoder, GradientsOfMicroBatchesAddUp) {
  NARROW_REQUIRE_SHARED();
  const auto whole = decoder_of("llama", at::kDouble), parts = decoder_of("llama", at::kDouble);
  ASSERT_NE(whole, nullptr);
  ASSERT_NE(parts, nullptr);
  train_all(*whole);
  train_all(*parts);
  const at::Tensor tokens = two_windows(whole->config().n_vocab);
  torch::autograd::backward({loss_of(*whole, tokens)}, {});
  for (std::int64_t i = 0; i < 2; ++i) {
    torch::autograd::backward({loss_of(*parts, tokens.narrow(0, i, 1)) / 2}, {});
  }
  for (const auto& [name, w] : whole->weights()) {
    const double size = w.grad().norm().item<double>();
    EXPECT_LE((w.grad() - parts->weight(name).grad()).norm().item<double>(), 1e-12 * size) << name;
  }
}

}  // namespace
}  // namespace narrow::train
