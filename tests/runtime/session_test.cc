// Errors, contexts and binding, on a model made up here.
#include "runtime/session.h"

#include <cmath>
#include <functional>

#include "runtime/toy_source.h"
#include "runtime/weights.h"
#include "testing/testing.h"

namespace narrow::runtime {
namespace {

std::string load_error(const std::function<void(ToySource&)>& change) {
  const auto source = std::make_shared<ToySource>();
  change(*source);
  const auto model = LoadedModel::load(source);
  return model.ok() ? "loaded" : model.error().message;
}

TEST(LoadedModel, ErrorsNameTensorAndShapes) {
  struct Case {
    const char* what;
    std::function<void(ToySource&)> change;
    std::vector<std::string> parts;
  };
  const Case cases[] = {
      {"whole", [](ToySource&) {}, {"loaded"}},
      {"missing",
       [](ToySource& s) { s.remove("blk.1.attn_k.weight"); },
       {"toy.gguf", "blk.1.attn_k.weight", "[8, 16]", "missing"}},
      {"wrong shape",
       [](ToySource& s) {
         s.reshape("blk.0.ffn_down.weight", {24, 16});
       },
       {"blk.0.ffn_down.weight", "[24, 16]", "[16, 24]"}},
      {"wrong vocabulary",
       [](ToySource& s) { s.settings().n_vocab = 12; },
       {"token_embd.weight", "[11, 16]", "[12, 16]"}},
      {"no head", [](ToySource& s) { s.settings().tied_head = false; }, {"output.weight"}},
      {"no place", [](ToySource& s) { s.add("blk.0.ssm_a", {16}); }, {"blk.0.ssm_a", "no place"}},
      {"rope table is fine", [](ToySource& s) { s.add("rope_freqs.weight", {2}); }, {"loaded"}},
      {"no norm at all",
       [](ToySource& s) { s.remove("blk.0.attn_norm.weight"); },
       {"blk.0.attn_norm.weight"}},
      {"missing QK norm",
       [](ToySource& s) { s.settings().qk_norm = model::QkNorm::kPerHead; },
       {"blk.0.attn_q_norm.weight", "[4]"}},
      {"missing experts",
       [](ToySource& s) {
         s.settings().layers[0].moe = true;
         s.settings().n_expert = 4;
         s.settings().n_expert_used = 2;
         s.settings().n_ff_expert = 8;
       },
       {"blk.0.ffn_gate_inp.weight", "[4, 16]"}},
      {"experts out of range",
       [](ToySource& s) {
         s.settings().layers[0].moe = true;
         s.settings().n_expert = 4;
         s.settings().n_expert_used = 5;
       },
       {"5 of 4 experts"}},
      {"uneven heads", [](ToySource& s) { s.settings().n_head_kv = 3; }, {"4 heads", "3 key heads"}},
      {"odd rope", [](ToySource& s) { s.settings().rope.dims = 3; }, {"3 rotated dimensions"}},
      {"zero layers", [](ToySource& s) { s.settings().n_layer = 0; }, {"layer count is 0"}},
  };
  for (const Case& c : cases) {
    const std::string message = load_error(c.change);
    for (const std::string& part : c.parts) {
      EXPECT_NE(message.find(part), std::string::npos) << c.what << ": " << message;
    }
  }
}

std::shared_ptr<const LoadedModel> load(const std::shared_ptr<ToySource>& source) {
  auto m = LoadedModel::load(source);
  EXPECT_OK(m);
  return *m;
}

TEST(LoadedModel, MapsOrMaterialises) {
  const auto mapped = std::make_shared<ToySource>(), made = std::make_shared<ToySource>();
  made->mapped = false;
  std::vector<float> a, b;
  const std::vector<std::int32_t> ids = {1, 2, 3};
  for (const auto& [source, out] : {std::pair{mapped, &a}, std::pair{made, &b}}) {
    const auto model = load(source);
    std::uint64_t bytes = 0;
    for (const TensorInfo& t : source->tensors()) bytes += t.bytes();
    EXPECT_EQ(model->weight_bytes(), bytes);
    EXPECT_EQ(model->weights().storage.empty(), source->mapped);
    ASSERT_OK_AND_ASSIGN(auto session, Session::create(model));
    ASSERT_OK(session->forward(ids, LogitRows::kAll, *out));
  }
  EXPECT_EQ(a, b);
}

TEST(Session, BadInputChangesNothing) {
  const auto model = load(std::make_shared<ToySource>());
  SessionOptions options;
  options.n_ctx = 5;
  ASSERT_OK_AND_ASSIGN(auto session, Session::create(model, options));
  std::vector<float> logits;
  const std::vector<std::int32_t> good = {1, 2, 3};
  ASSERT_OK(session->forward(good, LogitRows::kLast, logits));
  EXPECT_EQ(session->position(), 3);
  EXPECT_EQ(logits.size(), 11u);
  for (const std::vector<std::int32_t>& bad : {std::vector<std::int32_t>{1, 11}, {-1}, {1, 2, 3}}) {
    const Status s = session->forward(bad, LogitRows::kLast, logits);
    ASSERT_FALSE(s.ok());
    EXPECT_EQ(s.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(session->position(), 3);
  }
  EXPECT_FALSE(session->forward_from(good, 4, logits).ok());
  ASSERT_OK(session->forward({}, LogitRows::kLast, logits));
  EXPECT_TRUE(logits.empty());
  ASSERT_OK(session->truncate(99));
  EXPECT_EQ(session->position(), 3);
  ASSERT_OK(session->truncate(-1));
  EXPECT_EQ(session->position(), 0);
}

TEST(Session, ContextDefaultsAndLimits) {
  const auto source = std::make_shared<ToySource>();
  ASSERT_OK_AND_ASSIGN(auto session, Session::create(load(source)));
  EXPECT_EQ(session->n_ctx(), 2000);
  EXPECT_EQ(session->cache_bytes(), 0u);  // pages come with the positions
  std::vector<float> logits;
  const std::vector<std::int32_t> one = {1};
  ASSERT_OK(session->forward(one, LogitRows::kNone, logits));
  // layers, K and V, heads, a page of positions; fp32 as the weights are, values padded to 16 elements
  EXPECT_EQ(session->cache_bytes(), 2u * 2u * 64u * (4u + 16u) * sizeof(float));
  SessionOptions options;
  options.n_ctx = -3;
  EXPECT_FALSE(Session::create(load(source), options).ok());
  options.n_ctx = std::int64_t{1} << 60;
  const auto huge = Session::create(load(source), options);
  ASSERT_FALSE(huge.ok());
  EXPECT_EQ(huge.error().code, ErrorCode::kOutOfMemory);
  source->settings().position = model::Position::kLearned;
  source->add("position_embd.weight", {2000, 16});
  options.n_ctx = 2001;
  const auto beyond = Session::create(load(source), options);
  ASSERT_FALSE(beyond.ok());
  EXPECT_NE(beyond.error().message.find("2000 only"), std::string::npos) << beyond.error().message;
}

// More tokens than one run takes: rows of every run land in order, and equal those of small pieces.
TEST(Session, LongInputsRunInChunks) {
  const auto model = load(std::make_shared<ToySource>());
  std::vector<std::int32_t> ids(1300);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>((i * i + 3) % 11);
  ASSERT_OK_AND_ASSIGN(auto whole, Session::create(model));
  ASSERT_OK_AND_ASSIGN(auto pieces, Session::create(model));
  std::vector<float> a, from, b, part;
  ASSERT_OK(whole->forward(ids, LogitRows::kAll, a));
  for (std::size_t i = 0; i < ids.size(); i += 100) {
    ASSERT_OK(pieces->forward({ids.data() + i, 100}, LogitRows::kAll, part));
    b.insert(b.end(), part.begin(), part.end());
  }
  ASSERT_EQ(a.size(), ids.size() * 11);
  ASSERT_EQ(b.size(), a.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-4f) << i;
  ASSERT_OK(whole->truncate(0));
  ASSERT_OK(whole->forward_from(ids, 700, from));
  // fp32 products: with other numbers of rows oneDNN may sum in another order.
  ASSERT_EQ(from.size(), a.size() - 700 * 11);
  for (std::size_t i = 0; i < from.size(); ++i) ASSERT_NEAR(from[i], a[700 * 11 + i], 1e-5f) << i;
}

}  // namespace
}  // namespace narrow::runtime
