// prepare -> train -> convert, around: the file of a student that learned nothing is the file it started
// from, and that of one that changed is what its last forward pass computed with.
#include "recipe/encode_trained.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "model/tiny_models.h"
#include "pipeline/quantize.h"
#include "pipeline/tiny_gguf.h"
#include "runtime/session.h"
#include "testing/testing.h"
#include "train/prepare.h"

namespace narrow::recipe {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

struct Pair {
  std::shared_ptr<const model::ModelSource> reference, start;
};

Result<Pair> quantized(const TempDir& dir, const fs::path& source, const std::string& type) {
  QuantizeOptions o;
  o.source = source;
  o.output = dir / "start.gguf";
  o.type = type;
  NARROW_TRY(pipeline::run_quantize(o, null_progress()).status());
  Pair p;
  NARROW_ASSIGN(p.reference, model::ModelSource::open(source));
  NARROW_ASSIGN(p.start, model::ModelSource::open(o.output));
  return p;
}

Result<std::unique_ptr<train::Decoder>> student_of(const Pair& p, bool learn_scales) {
  NARROW_ASSIGN(auto student, train::Decoder::create(*p.reference));
  train::PrepareOptions o;
  o.learn_scales = learn_scales;
  o.is_frozen = [](const std::string&) { return false; };
  NARROW_TRY(train::prepare(*student, *p.start, o).status());
  return student;
}

std::vector<std::byte> bytes_of(const model::ModelSource& source, std::size_t index) {
  const TensorInfo& t = source.tensors()[index];
  std::vector<std::byte> out(t.bytes());
  EXPECT_OK(source.read_raw(index, 0, t.shape.rows(), out.data()));
  return out;
}

constexpr const char* kTypes[] = {"q4_0", "q4_k_m", "q3_k_m", "q2_k", "mxfp4", "tq2_0", "q8_0"};

TEST(EncodeTrained, NothingLearnedIsTheStartFile) {
  const TempDir dir;
  const fs::path source = dir / "source.gguf";
  ASSERT_OK(testing::write_tiny_gguf(source));
  for (const char* type : kTypes) {
    SCOPED_TRACE(type);
    ASSERT_OK_AND_ASSIGN(const Pair p, quantized(dir, source, type));
    for (const bool learn : {false, true}) {
      ASSERT_OK_AND_ASSIGN(const auto student, student_of(p, learn));
      ASSERT_OK_AND_ASSIGN(const auto tensors, encode_trained(*student, *p.start));
      EXPECT_GT(tensors.size(), 10u);
      for (const pipeline::TrainedTensor& t : tensors) {
        EXPECT_TRUE(t.bytes == bytes_of(*p.start, *p.start->find(t.name))) << t.name << " " << learn;
      }
    }
  }
}

Result<std::vector<float>> engine_logits(const fs::path& file, const std::vector<std::int32_t>& ids) {
  NARROW_ASSIGN(const auto source, model::ModelSource::open(file));
  NARROW_ASSIGN(const auto model, runtime::LoadedModel::load(source, {runtime::Compute::kFloat}));
  runtime::SessionOptions options;
  options.n_ctx = 32;
  options.cache_keys = options.cache_values = Format::kF32;
  NARROW_ASSIGN(const auto session, runtime::Session::create(model, options));
  std::vector<float> out;
  NARROW_TRY(session->forward(ids, runtime::LogitRows::kAll, out));
  return out;
}

// Weights and gains moved as training moves them: the written file decodes to the forward pass's weights, bit
// for bit, and the engine's logits are those of the student.
TEST(EncodeTrained, TheFileIsWhatTheForwardPassUsed) {
  const TempDir dir;
  const fs::path source = dir / "source.gguf", output = dir / "trained.gguf";
  ASSERT_OK(testing::write_tiny_gguf(source));
  std::vector<std::int32_t> ids;
  for (std::int32_t i = 0; i < 24; ++i) ids.push_back((i * i * 31 + 7 * i + 3) % 64);
  const at::NoGradGuard off;
  for (const char* type : kTypes) {
    SCOPED_TRACE(type);
    ASSERT_OK_AND_ASSIGN(const Pair p, quantized(dir, source, type));
    ASSERT_OK_AND_ASSIGN(const auto student, student_of(p, true));
    at::manual_seed(5);
    for (auto& [name, w] : student->weights()) {
      w.detach().add_(at::randn_like(w) * (w.dim() == 1 ? 0.1 : 0.01));
    }
    for (const auto& [name, node] : student->weight_nodes()) {
      for (const train::NamedTensor& s : node->parameters()) {
        s.tensor.detach().mul_(1.0 + 0.2 * at::rand_like(s.tensor));
      }
      node->set_phase(train::Phase::kFrozen);
    }
    student->forget_quantized();
    ASSERT_OK_AND_ASSIGN(const auto tensors, encode_trained(*student, *p.start));
    ASSERT_OK(
        pipeline::write_trained(p.start->path(), output, tensors, {{"command", "qat"}}, null_progress()));
    ASSERT_OK_AND_ASSIGN(const auto made, model::ModelSource::open(output));
    std::size_t changed = 0;
    for (const TensorInfo& t : made->tensors()) {
      const std::vector<float> stored = model::read_all(*made, *made->find(t.name));
      const at::Tensor used = student->effective(t.name).contiguous();
      ASSERT_EQ(used.numel(), static_cast<std::int64_t>(stored.size())) << t.name;
      EXPECT_EQ(std::memcmp(used.data_ptr<float>(), stored.data(), stored.size() * sizeof(float)), 0)
          << t.name;
      changed += bytes_of(*made, *made->find(t.name)) != bytes_of(*p.start, *p.start->find(t.name)) ? 1 : 0;
    }
    EXPECT_EQ(changed, made->tensors().size());
    ASSERT_OK_AND_ASSIGN(const std::vector<float> engine, engine_logits(output, ids));
    const at::Tensor tokens = at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end())).reshape({1, -1});
    const at::Tensor logits = student->logits(tokens).contiguous();
    ASSERT_EQ(logits.numel(), static_cast<std::int64_t>(engine.size()));
    for (std::int64_t i = 0; i < logits.numel(); ++i) {
      ASSERT_NEAR(logits.data_ptr<float>()[i], engine[static_cast<std::size_t>(i)], 1e-3) << i;
    }
  }
}

TEST(EncodeTrained, NumbersThatAreNoneAreNamed) {
  const TempDir dir;
  const fs::path source = dir / "source.gguf";
  ASSERT_OK(testing::write_tiny_gguf(source));
  ASSERT_OK_AND_ASSIGN(const Pair p, quantized(dir, source, "q4_0"));
  for (const char* name : {"blk.1.attn_norm.weight", "blk.0.ffn_up.weight"}) {
    ASSERT_OK_AND_ASSIGN(const auto student, student_of(p, false));
    student->weights().at(name).detach().view({-1})[7] = std::nanf("");
    const auto r = encode_trained(*student, *p.start);
    ASSERT_FALSE(r.ok()) << name;
    EXPECT_EQ(r.error().code, ErrorCode::kNumeric);
    EXPECT_NE(r.error().message.find(name), std::string::npos) << r.error().message;
  }
}

}  // namespace
}  // namespace narrow::recipe
