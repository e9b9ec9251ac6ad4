// The logits of every instruction set of this host against generic's: the kernels choose themselves once per
// process, so each set runs in a process of its own, this test executable again.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "kernels/dispatch.h"
#include "runtime/session.h"
#include "runtime/toy_source.h"
#include "testing/testing.h"

namespace narrow::runtime {
namespace {

namespace fs = std::filesystem;

struct Subject {
  std::string name;
  Format format = Format::kQ8_0;  // of a toy model; not used with a file
  fs::path file;
  std::size_t tokens = 0;
  Format cache = Format::kF16;
  Compute compute = Compute::kStored;
};

std::vector<Subject> subjects() {
  std::vector<Subject> all;
  for (const Format f :
       {Format::kQ8_0, Format::kQ4_0, Format::kQ4_1, Format::kQ5_0, Format::kIQ4_NL, Format::kMXFP4}) {
    all.push_back({std::string(format_info(f).name), f, {}, 150});
  }
  all.push_back({"cache-q8_0", Format::kQ8_0, {}, 150, Format::kQ8_0});
  all.push_back({"w8a8", Format::kQ8_0, {}, 150, Format::kF16, Compute::kW8A8});
  all.push_back({"simulate", Format::kQ8_0, {}, 150, Format::kF16, Compute::kSimulate});
  if (std::getenv("NARROW_SANITIZED") != nullptr)
    return all;  // scalar code on real models would take minutes
  const fs::path models = testing::cache_dir() / "models";
  for (const char* name : {"smollm2-q4_1.gguf", "gemma3-270m-q4_k_m.gguf"}) {
    if (fs::exists(models / name)) all.push_back({name, Format::kQ8_0, models / name, 40});
  }
  return all;
}

// Not a test by itself: writes the logits of all subjects into the folder that the variable names.
TEST(IsaLogits, Write) {
  const char* folder = std::getenv("NARROW_TEST_LOGITS");
  if (folder == nullptr) GTEST_SKIP() << "run by IsaLogits.EqualGeneric";
  for (const Subject& s : subjects()) {
    std::shared_ptr<const model::ModelSource> source;
    if (s.file.empty()) {
      source = std::make_shared<ToySource>(32, s.format);
    } else {
      ASSERT_OK_AND_ASSIGN(source, model::ModelSource::open(s.file));
    }
    ASSERT_OK_AND_ASSIGN(const auto model, LoadedModel::load(source, {s.compute}));
    SessionOptions options;
    options.n_ctx = 256;
    options.cache_keys = options.cache_values = s.cache;
    ASSERT_OK_AND_ASSIGN(const auto session, Session::create(model, options));
    std::vector<std::int32_t> ids(s.tokens);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      ids[i] = static_cast<std::int32_t>((i * i * 31 + 7 * i + 3) %
                                         static_cast<std::size_t>(model->config().n_vocab));
    }
    std::vector<float> logits, more;
    // Many tokens at once and single ones take different kernels.
    const std::size_t most = ids.size() - 4;
    ASSERT_OK(session->forward({ids.data(), most}, LogitRows::kAll, logits));
    for (std::size_t i = most; i < ids.size(); ++i) {
      ASSERT_OK(session->forward({&ids[i], 1}, LogitRows::kAll, more));
      logits.insert(logits.end(), more.begin(), more.end());
    }
    std::ofstream out(fs::path(folder) / s.name, std::ios::binary);
    const std::int64_t vocab = model->config().n_vocab;
    out.write(reinterpret_cast<const char*>(&vocab), sizeof vocab);
    out.write(reinterpret_cast<const char*>(logits.data()),
              static_cast<std::streamsize>(logits.size() * sizeof(float)));
    ASSERT_TRUE(out.good());
  }
}

struct Logits {
  std::size_t vocab = 0;
  std::vector<float> values;
};

Logits read_logits(const fs::path& path) {
  const std::string bytes = testing::read_file(path);
  std::int64_t vocab = 0;
  std::memcpy(&vocab, bytes.data(), sizeof vocab);
  Logits l;
  l.vocab = static_cast<std::size_t>(vocab);
  l.values.resize((bytes.size() - sizeof vocab) / sizeof(float));
  std::memcpy(l.values.data(), bytes.data() + sizeof vocab, l.values.size() * sizeof(float));
  return l;
}

// KL(p || q) of the distributions behind two rows of logits.
double divergence(const float* p, const float* q, std::size_t n) {
  const auto log_sum = [n](const float* x) {
    double max = x[0], sum = 0;
    for (std::size_t i = 0; i < n; ++i) max = std::max(max, static_cast<double>(x[i]));
    for (std::size_t i = 0; i < n; ++i) sum += std::exp(x[i] - max);
    return max + std::log(sum);
  };
  const double zp = log_sum(p), zq = log_sum(q);
  double kl = 0;
  for (std::size_t i = 0; i < n; ++i) kl += std::exp(p[i] - zp) * ((p[i] - zp) - (q[i] - zq));
  return kl;
}

TEST(IsaLogits, EqualGeneric) {
  const testing::TempDir dir;
  const std::string self = fs::read_symlink("/proc/self/exe").string();
  for (const kernels::KernelTable* table : kernels::available_kernels(cpu_features())) {
    const fs::path folder = dir / std::string(table->name);
    fs::create_directory(folder);
    const auto r = testing::run_command({"/usr/bin/env", "NARROW_ISA=" + std::string(table->name),
                                         "NARROW_TEST_LOGITS=" + folder.string(), self,
                                         "--gtest_filter=IsaLogits.Write"});
    ASSERT_EQ(r.exit_code, 0) << r.out << r.err;
  }
  for (const kernels::KernelTable* table : kernels::available_kernels(cpu_features())) {
    if (table->name == "generic") continue;
    for (const Subject& s : subjects()) {
      const Logits want = read_logits(dir.path() / "generic" / s.name);
      const Logits got = read_logits(dir.path() / std::string(table->name) / s.name);
      ASSERT_EQ(got.values.size(), want.values.size());
      double sum = 0;
      for (std::size_t at = 0; at < got.values.size(); at += got.vocab) {
        sum += divergence(want.values.data() + at, got.values.data() + at, got.vocab);
      }
      const double mean = sum / static_cast<double>(got.values.size() / got.vocab);
      EXPECT_LT(mean, 1e-5) << table->name << " " << s.name;
      EXPECT_EQ(std::memcmp(got.values.data(), want.values.data(), got.values.size() * sizeof(float)), 0)
          << table->name << " " << s.name;
      std::printf("%s %s: mean KL %.2e\n", std::string(table->name).c_str(), s.name.c_str(), mean);
    }
  }
}

}  // namespace
}  // namespace narrow::runtime
