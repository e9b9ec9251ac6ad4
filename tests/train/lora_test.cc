#include "train/lora.h"

#include <cmath>

#include "testing/testing.h"
#include "train/small_llama.h"

namespace narrow::train {
namespace {

std::unique_ptr<Decoder> small(at::ScalarType dtype = at::kFloat) {
  auto d = Decoder::create_random(testing::small_llama(), 3, dtype);
  EXPECT_TRUE(d.ok()) << d.error().message;
  return std::move(*d);
}

std::vector<std::string> names_of(Decoder& d) {
  std::vector<std::string> out;
  for (const auto& [name, lora] : d.loras()) out.push_back(name);
  return out;
}

at::Tensor some_tokens() { return at::arange(24, at::kLong).reshape({2, 12}).remainder(50); }

TEST(Lora, ChangesNothingAtFirstAndMerges) {
  auto d = small();
  const at::Tensor before = d->logits(some_tokens()).detach().clone();
  ASSERT_OK(add_loras(*d, {4, 8, 1, {}}));
  const auto names = names_of(*d);
  EXPECT_EQ(names.size(), 2u * 7);  // q, k, v, output, gate, up, down
  EXPECT_TRUE(at::equal(d->logits(some_tokens()).detach(), before));
  {
    const at::NoGradGuard no_grad;
    for (auto& [name, lora] : d->loras()) lora.b.fill_(0.05f);
  }
  const at::Tensor w = d->weight(names[0]).detach().clone();
  const Lora lora = d->loras().at(names[0]);
  const at::Tensor updated = d->logits(some_tokens()).detach().clone();
  EXPECT_GT((updated - before).abs().max().item<double>(), 1e-4);
  d->merge_loras();
  EXPECT_TRUE(d->loras().empty());
  EXPECT_LT((d->logits(some_tokens()).detach() - updated).abs().max().item<double>(), 1e-5);
  EXPECT_LT((d->weight(names[0]) - w - 2 * at::mm(lora.b, lora.a)).abs().max().item<double>(), 1e-6);
}

TEST(Lora, OnlyUpdatesGetGradients) {
  auto d = small();
  for (auto& [name, w] : d->weights()) w.set_requires_grad(true);
  ASSERT_OK(add_loras(
      *d, {2, 2, 1, [](const std::string& name) { return name.find("attn_q") != std::string::npos; }}));
  const auto names = names_of(*d);
  EXPECT_EQ(names, (std::vector<std::string>{"blk.0.attn_q.weight", "blk.1.attn_q.weight"}));
  d->logits(some_tokens()).square().sum().backward();
  EXPECT_FALSE(d->weight(names[0]).grad().defined());
  EXPECT_TRUE(d->weight("blk.0.attn_k.weight").grad().defined());
  const Lora& lora = d->loras().at(names[0]);
  ASSERT_TRUE(lora.b.grad().defined());
  EXPECT_GT(lora.b.grad().abs().max().item<double>(), 0);
  EXPECT_EQ(lora.a.grad().abs().max().item<double>(), 0);  // b is 0
}

TEST(Lora, StartIsOfSeedAndNameAlone) {
  auto one = small(), other = small();
  ASSERT_OK(add_loras(*one, {4, 8, 1, {}}));
  ASSERT_OK(add_loras(*other, {4, 8, 1, [](const std::string& n) { return n == "blk.1.ffn_down.weight"; }}));
  const at::Tensor a = one->loras().at("blk.1.ffn_down.weight").a;
  EXPECT_TRUE(at::equal(a, other->loras().at("blk.1.ffn_down.weight").a));
  EXPECT_FALSE(at::equal(a, one->loras().at("blk.0.ffn_down.weight").a));
  // Uniform in +-1/sqrt(48): that variance, and no value outside.
  EXPECT_LE(a.abs().max().item<double>(), 1 / std::sqrt(48.0));
  EXPECT_NEAR(a.square().mean().item<double>() * 48 * 3, 1, 0.2);
}

TEST(Lora, KeepsTheWeightsDtype) {
  auto d = small(at::kBFloat16);
  ASSERT_OK(add_loras(*d, {4, 8, 1, {}}));
  const auto names = names_of(*d);
  EXPECT_EQ(d->loras().at(names[0]).a.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(d->loras().at(names[0]).a.is_leaf());
}

TEST(Lora, RefusesBadSpecs) {
  auto d = small();
  const auto error = [&](const LoraSpec& s) {
    const Status r = add_loras(*d, s);
    return r.ok() ? std::string() : r.error().message;
  };
  EXPECT_NE(error({0, 1, 0, {}}).find("rank 0"), std::string::npos);
  EXPECT_NE(error({16, 1, 0, {}}).find("blk.0.attn_k.weight' is 16 x 32"), std::string::npos);
  EXPECT_NE(error({4, 1, 0, [](const std::string&) { return false; }}).find("finds none"), std::string::npos);
  EXPECT_TRUE(d->loras().empty());
  EXPECT_FALSE(is_layer_matrix("token_embd.weight"));
  EXPECT_FALSE(is_layer_matrix("blk.0.attn_norm.weight"));
  EXPECT_FALSE(is_layer_matrix("blk.0.attn_q.bias"));
}

}  // namespace
}  // namespace narrow::train
