#include "calib/imatrix.h"

#include <dlfcn.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "io/gguf/reader.h"
#include "io/gguf/writer.h"
#include "testing/testing.h"

namespace narrow::calib {
namespace {

namespace fs = std::filesystem;
namespace gguf = io::gguf;
using testing::TempDir;

InputStats random_stats(std::int64_t rows, std::int64_t k, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(rows * k));
  for (float& v : x) v = rng.normal() - 0.5f;
  InputStats s;
  EXPECT_OK(s.add({x.data(), rows, k}));
  return s;
}

// A dense matrix, one of three experts of which the last saw nothing, and one without data.
ModelStats example() {
  ModelStats m;
  m.datasets = {"wiki.txt", "code.txt"};
  m.chunk_tokens = 512;
  m.chunks = 3;
  m.inputs["blk.0.attn_q.weight"].push_back(random_stats(1300, 6, 1));
  auto& experts = m.inputs["blk.0.ffn_up_exps.weight"];
  experts.push_back(random_stats(900, 4, 2));
  experts.push_back(random_stats(30, 4, 3));
  experts.push_back(InputStats::of_width(4));
  m.inputs["blk.0.ffn_down.weight"].push_back(InputStats::of_width(5));
  return m;
}

void expect_near(const std::vector<double>& a, const std::vector<double>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-6 * (1 + std::abs(b[i])));
}

TEST(Imatrix, AGgufComesBackWhole) {
  const TempDir dir;
  const ModelStats m = example();
  ASSERT_OK(write_imatrix(m, dir / "a.gguf", ImatrixFormat::kGguf));
  ASSERT_OK_AND_ASSIGN(const ModelStats r, read_imatrix(dir / "a.gguf"));
  EXPECT_EQ(r.datasets, m.datasets);
  EXPECT_EQ(r.chunks, 3);
  EXPECT_EQ(r.chunk_tokens, 512);
  ASSERT_EQ(r.inputs.size(), m.inputs.size());
  for (const auto& [name, entries] : m.inputs) {
    const auto& back = r.inputs.at(name);
    ASSERT_EQ(back.size(), entries.size()) << name;
    for (std::size_t e = 0; e < entries.size(); ++e) {
      EXPECT_EQ(back[e].k, entries[e].k);
      EXPECT_EQ(back[e].rows, entries[e].rows);
      expect_near(back[e].sum_square, entries[e].sum_square);
      expect_near(back[e].sum, entries[e].sum);
      EXPECT_EQ(back[e].abs_max, entries[e].abs_max);
    }
  }
}

TEST(Imatrix, ADatComesBackAsMeanSquares) {
  const TempDir dir;
  const ModelStats m = example();
  ASSERT_OK(write_imatrix(m, dir / "a.dat", ImatrixFormat::kDat));
  ASSERT_OK_AND_ASSIGN(ModelStats r, read_imatrix(dir / "a.dat"));
  EXPECT_EQ(r.datasets, std::vector<std::string>{"code.txt"});
  EXPECT_EQ(r.chunks, 3);
  ASSERT_EQ(r.inputs.size(), 2u);  // without the matrix that has no data
  ASSERT_TRUE(split_experts(r.inputs.at("blk.0.ffn_up_exps.weight"), 3));
  for (const auto& [name, entries] : r.inputs) {
    const auto& wrote = m.inputs.at(name);
    for (std::size_t e = 0; e < entries.size(); ++e) {
      EXPECT_TRUE(entries[e].sum.empty());
      if (wrote[e].rows == 0) {
        EXPECT_EQ(entries[e].rows, 0) << "an expert without data is known by its ones";
        continue;
      }
      for (std::size_t i = 0; i < wrote[e].sum_square.size(); ++i) {
        const double mean = wrote[e].sum_square[i] / static_cast<double>(wrote[e].rows);
        EXPECT_NEAR(entries[e].sum_square[i] / static_cast<double>(entries[e].rows), mean, 1e-6 * mean);
      }
    }
  }
}

// ---- files of llama.cpp's making, byte by byte

class Bytes {
 public:
  Bytes& i32(std::int32_t x) { return raw(&x, 4); }
  Bytes& f32(std::vector<float> x) { return raw(x.data(), 4 * x.size()); }
  Bytes& text(const std::string& s) { return raw(s.data(), s.size()); }
  const std::string& str() const { return bytes_; }

 private:
  Bytes& raw(const void* p, std::size_t n) {
    bytes_.append(static_cast<const char*>(p), n);
    return *this;
  }
  std::string bytes_;
};

TEST(Imatrix, ADatIsReadByteByByte) {
  const TempDir dir;
  Bytes b;
  b.i32(2).i32(3).text("a.b").i32(4).i32(2).f32({8, 12}).i32(1).text("c").i32(1).i32(1).f32({0.5f});
  const std::string without_tail = b.str();
  b.i32(4).i32(5).text("x.txt");
  testing::write_file(dir / "a.dat", b.str());
  testing::write_file(dir / "b.dat", without_tail);
  ASSERT_OK_AND_ASSIGN(const ModelStats r, read_imatrix(dir / "a.dat"));
  EXPECT_EQ(r.chunks, 4);
  EXPECT_EQ(r.datasets, std::vector<std::string>{"x.txt"});
  const InputStats& a = r.inputs.at("a.b")[0];
  EXPECT_EQ(a.rows, 4 * 512);
  EXPECT_DOUBLE_EQ(a.sum_square[0] / static_cast<double>(a.rows), 2.0);
  EXPECT_DOUBLE_EQ(a.sum_square[1] / static_cast<double>(a.rows), 3.0);
  ASSERT_OK_AND_ASSIGN(const ModelStats bare, read_imatrix(dir / "b.dat"));
  EXPECT_EQ(bare.inputs.size(), 2u);
  // Cut off anywhere before its tail it is refused; its file is named.
  for (std::size_t n = 0; n < without_tail.size(); ++n) {
    testing::write_file(dir / "cut.dat", without_tail.substr(0, n));
    const auto cut = read_imatrix(dir / "cut.dat");
    ASSERT_FALSE(cut.ok()) << n;
    EXPECT_NE(cut.error().message.find("cut.dat"), std::string::npos);
    EXPECT_EQ(cut.error().message.find('\n'), std::string::npos);
  }
}

TEST(Imatrix, DamagedDatFilesAreRefusedByName) {
  const TempDir dir;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const struct {
    std::string bytes, words;
  } cases[] = {
      {Bytes().i32(1).i32(1).text("a").i32(1).i32(2).f32({1, nan}).str(), "'a' has nan at index 1"},
      {Bytes().i32(1).i32(1).text("a").i32(1).i32(2).f32({-1, 1}).str(), "'a' has -1 at index 0"},
      {Bytes().i32(1).i32(1).text("a").i32(1).i32(-2).f32({1, 1}).str(), "ends within entry 1 of 1"},
      {Bytes().i32(1).i32(1).text("a").i32(1).i32(2000000000).f32({1, 1}).str(), "ends within entry 1"},
      {Bytes().i32(1).i32(2000000000).text("abcdefghijklmnop").str(), "ends within entry 1"},
      {Bytes().i32(0).text("aaaaaaaaaaaaaaaaaaaaaaaaaaa").str(), "neither a GGUF nor"},
      {"It is a truth universally acknowledged, that a single man", "neither a GGUF nor"},
      {"", "neither a GGUF nor"},
      {Bytes().i32(2).i32(1).text("a").i32(1).i32(1).f32({1}).i32(1).text("a").i32(1).i32(1).f32({1}).str(),
       "'a' is there twice"},
  };
  for (const auto& c : cases) {
    testing::write_file(dir / "a.dat", c.bytes);
    const auto r = read_imatrix(dir / "a.dat");
    ASSERT_FALSE(r.ok()) << c.words;
    EXPECT_NE(r.error().message.find(c.words), std::string::npos) << r.error().message;
  }
  // Calls of 0 are data that is not there.
  testing::write_file(dir / "a.dat", Bytes().i32(1).i32(1).text("a").i32(0).i32(1).f32({1}).str());
  ASSERT_OK_AND_ASSIGN(const ModelStats r, read_imatrix(dir / "a.dat"));
  EXPECT_EQ(r.inputs.at("a")[0].rows, 0);
  EXPECT_EQ(moments(r.inputs.at("a"))[0].mean_square[0], 1.0f);
  EXPECT_FALSE(read_imatrix(dir / "missing.dat").ok());
}

struct F32Tensor {
  std::string name;
  Shape shape;
  std::vector<float> values;
};

void write_gguf(const fs::path& path, const std::vector<F32Tensor>& tensors, const std::string& type) {
  gguf::Metadata m;
  if (!type.empty()) m.set_string("general.type", type);
  std::vector<TensorInfo> infos;
  for (const F32Tensor& t : tensors) infos.push_back({t.name, Format::kF32, t.shape});
  ASSERT_OK_AND_ASSIGN(auto writer, gguf::Writer::create(path, m, infos));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    ASSERT_OK(writer->write(i, 0, std::as_bytes(std::span(tensors[i].values))));
  }
  ASSERT_OK(writer->finish());
}

TEST(Imatrix, DamagedGgufFilesAreRefusedByName) {
  const TempDir dir;
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const F32Tensor sums = {"a.in_sum2", {2}, {1, 2}}, counts = {"a.counts", {1}, {4}};
  const struct {
    std::vector<F32Tensor> tensors;
    std::string type, words;
  } cases[] = {
      {{sums}, "imatrix", "'a.counts' is missing"},
      {{counts}, "imatrix", "'a.in_sum2' is missing"},
      {{{"a.in_sum2", {2}, {1, nan}}, counts}, "imatrix", "'a.in_sum2' has nan at index 1"},
      {{{"a.in_sum2", {2}, {inf, 1}}, counts}, "imatrix", "'a.in_sum2' has inf at index 0"},
      {{{"a.in_sum2", {2}, {-3, 1}}, counts}, "imatrix", "'a.in_sum2' has -3 at index 0"},
      {{sums, {"a.counts", {1}, {nan}}}, "imatrix", "'a.counts' has nan"},
      {{sums, {"a.counts", {1}, {-1}}}, "imatrix", "'a.counts' has -1"},
      {{sums, {"a.counts", {3}, {1, 1, 1}}}, "imatrix", "2 values for the 3 counts"},
      {{sums, counts, {"a.in_sum", {3}, {1, 1, 1}}}, "imatrix", "'a.in_sum' has 3 values beside 2"},
      {{sums, counts, {"a.in_abs_max", {2}, {1, nan}}}, "imatrix", "'a.in_abs_max' has nan"},
      {{{"token_embd.weight", {2}, {1, 1}}}, "", "no statistics in it (general.type is 'model')"},
  };
  for (const auto& c : cases) {
    write_gguf(dir / "a.gguf", c.tensors, c.type);
    const auto r = read_imatrix(dir / "a.gguf");
    ASSERT_FALSE(r.ok()) << c.words;
    EXPECT_NE(r.error().message.find(c.words), std::string::npos) << r.error().message;
    EXPECT_NE(r.error().message.find("a.gguf"), std::string::npos) << r.error().message;
  }
  // What works: a sum that may be negative, counts of 0, zeros.
  write_gguf(dir / "a.gguf",
             {sums, counts, {"a.in_sum", {2}, {-1, -2}}, {"b.in_sum2", {2}, {9, 9}}, {"b.counts", {1}, {0}}},
             "imatrix");
  ASSERT_OK_AND_ASSIGN(const ModelStats r, read_imatrix(dir / "a.gguf"));
  EXPECT_EQ(r.inputs.at("a")[0].sum, (std::vector<double>{-1, -2}));
  EXPECT_EQ(moments(r.inputs.at("b"))[0].mean_square, std::vector<float>(2, 1.0f));
  ASSERT_OK(write_imatrix(r, dir / "b.gguf", ImatrixFormat::kGguf));
  // Cut off at any point.
  const std::string whole = testing::read_file(dir / "a.gguf");
  for (std::size_t n = 0; n < whole.size() - 32; n += 13) {
    testing::write_file(dir / "cut.gguf", whole.substr(0, n));
    EXPECT_FALSE(read_imatrix(dir / "cut.gguf").ok()) << n;
  }
}

TEST(Imatrix, ChangedBytesAreReadOrRefusedButNeverPassedOn) {
  const TempDir dir;
  const ModelStats m = example();
  Rng rng(11);
  int refused = 0;
  for (const ImatrixFormat f : {ImatrixFormat::kGguf, ImatrixFormat::kDat}) {
    ASSERT_OK(write_imatrix(m, dir / "whole", f));
    const std::string whole = testing::read_file(dir / "whole");
    for (int round = 0; round < 500; ++round) {
      std::string bytes = whole;
      for (int change = 0; change < 1 + round % 3; ++change) {
        bytes[static_cast<std::size_t>(rng.next_u64() % bytes.size())] =
            static_cast<char>(rng.next_u64() % 256);
      }
      testing::write_file(dir / "changed", bytes);
      auto r = read_imatrix(dir / "changed");
      if (!r.ok()) {
        ++refused;
        EXPECT_EQ(r.error().message.find('\n'), std::string::npos) << r.error().message;
        continue;
      }
      for (auto& [name, entries] : r->inputs) {
        for (const Moments& moment : moments(entries)) {
          for (const float v : moment.mean_square) ASSERT_TRUE(std::isfinite(v) && v > 0.0f) << name;
        }
      }
    }
  }
  EXPECT_GT(refused, 50);
}

TEST(Imatrix, WithoutAnyStatisticsNothingIsWritten) {
  const TempDir dir;
  ModelStats m;
  m.inputs["a"].push_back(InputStats::of_width(4));
  for (const ImatrixFormat f : {ImatrixFormat::kGguf, ImatrixFormat::kDat}) {
    EXPECT_FALSE(write_imatrix(m, dir / "a", f).ok());
    EXPECT_FALSE(fs::exists(dir / "a"));
  }
}

// ---- oracles

TEST(Imatrix, PythonReadsWhatIsWritten) {
  NARROW_REQUIRE_PYTHON();
  const TempDir dir;
  const ModelStats m = example();
  ASSERT_OK(write_imatrix(m, dir / "a.gguf", ImatrixFormat::kGguf));
  const std::string text = testing::run_python(R"(
import json, sys
from gguf import GGUFReader
r = GGUFReader(sys.argv[1])
print(json.dumps({
    "type": r.fields["general.type"].contents(), "datasets": r.fields["imatrix.datasets"].contents(),
    "count": int(r.fields["imatrix.chunk_count"].contents()), "size": int(r.fields["imatrix.chunk_size"].contents()),
    "tensors": {t.name: [list(map(int, t.shape)), t.data.ravel().tolist()] for t in r.tensors}}))
)",
                                               {(dir / "a.gguf").string()});
  const auto j = nlohmann::json::parse(text);
  EXPECT_EQ(j["type"], "imatrix");
  EXPECT_EQ(j["datasets"], (std::vector<std::string>{"wiki.txt", "code.txt"}));
  EXPECT_EQ(j["count"], 3);
  EXPECT_EQ(j["size"], 512);
  // ggml's order: the inputs first, then the experts.
  const auto& experts = j["tensors"]["blk.0.ffn_up_exps.weight.in_sum2"];
  EXPECT_EQ(experts[0], (std::vector<int>{4, 3}));
  EXPECT_FLOAT_EQ(experts[1][5],
                  static_cast<float>(m.inputs.at("blk.0.ffn_up_exps.weight")[1].sum_square[1]));
  const auto& counts = j["tensors"]["blk.0.ffn_up_exps.weight.counts"];
  EXPECT_EQ(counts[0], (std::vector<int>{1, 3}));
  EXPECT_EQ(counts[1], (std::vector<float>{900, 30, 0}));
}

TEST(Imatrix, WhatPythonWritesIsRead) {
  NARROW_REQUIRE_PYTHON();
  const TempDir dir;
  testing::run_python(R"(
import sys, numpy as np
from gguf import GGUFWriter
w = GGUFWriter(sys.argv[1], "none")
w.add_string("general.type", "imatrix")
w.add_array("imatrix.datasets", ["a.txt"])
w.add_uint32("imatrix.chunk_count", 7)
w.add_uint32("imatrix.chunk_size", 256)
w.add_tensor("blk.0.attn_q.weight.in_sum2", np.array([[1792., 3584.]], np.float32))
w.add_tensor("blk.0.attn_q.weight.counts", np.array([[1792.]], np.float32))
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
)",
                      {(dir / "a.gguf").string()});
  ASSERT_OK_AND_ASSIGN(const ModelStats r, read_imatrix(dir / "a.gguf"));
  EXPECT_EQ(r.chunks, 7);
  EXPECT_EQ(r.chunk_tokens, 256);
  EXPECT_EQ(moments(r.inputs.at("blk.0.attn_q.weight"))[0].mean_square, (std::vector<float>{1, 2}));
  EXPECT_TRUE(moments(r.inputs.at("blk.0.attn_q.weight"))[0].mean.empty());
}

// What llama.cpp's loader fills (common/imatrix-loader.h).
struct LlamaEntry {
  std::vector<float> sums;
  std::vector<std::int64_t> counts;
};
struct LlamaImatrix {
  std::map<std::string, LlamaEntry> entries;
  std::vector<std::string> datasets;
  std::int32_t chunk_count = 0, chunk_size = 0;
  bool is_legacy = false, has_metadata = false;
};

// The loader out of llama.cpp's prebuilt libraries, beside NARROW_GGML_LIB; null where there is none.
using LlamaLoad = bool (*)(const std::string&, LlamaImatrix&);
LlamaLoad llama_loader() {
  const char* ggml = std::getenv("NARROW_GGML_LIB");
  if (ggml == nullptr) return nullptr;
  void* common = nullptr;
  for (const std::string stem : {"libggml-base", "libggml.", "libllama.", "libllama-common"}) {
    for (const auto& e : fs::directory_iterator(fs::path(ggml).parent_path())) {
      if (e.path().filename().string().starts_with(stem))
        common = dlopen(e.path().c_str(), RTLD_NOW | RTLD_GLOBAL);
    }
  }
  if (common == nullptr) return nullptr;
  return reinterpret_cast<LlamaLoad>(dlsym(
      common,
      "_Z19common_imatrix_loadRKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEER14common_imatrix"));
}

TEST(Imatrix, LlamaCppReadsWhatIsWritten) {
  const LlamaLoad load = llama_loader();
  if (load == nullptr) GTEST_SKIP() << "no llama.cpp (scripts/test --peers sets NARROW_GGML_LIB)";
  const TempDir dir;
  const ModelStats m = example();
  ASSERT_OK(write_imatrix(m, dir / "a.gguf", ImatrixFormat::kGguf));
  ASSERT_OK(write_imatrix(m, dir / "a.dat", ImatrixFormat::kDat));
  LlamaImatrix g, d;
  ASSERT_TRUE(load((dir / "a.gguf").string(), g));
  EXPECT_TRUE(g.has_metadata);
  EXPECT_FALSE(g.is_legacy);
  EXPECT_EQ(g.datasets, m.datasets);
  EXPECT_EQ(g.chunk_count, 3);
  EXPECT_EQ(g.chunk_size, 512);
  ASSERT_EQ(g.entries.size(), m.inputs.size());  // means and maxima are passed over
  for (const auto& [name, entries] : m.inputs) {
    const LlamaEntry& e = g.entries.at(name);
    ASSERT_EQ(e.counts.size(), entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
      EXPECT_EQ(e.counts[i], entries[i].rows);
      const auto k = static_cast<std::size_t>(entries[i].k);
      for (std::size_t j = 0; j < k; ++j) {
        EXPECT_FLOAT_EQ(e.sums[i * k + j], static_cast<float>(entries[i].sum_square[j]));
      }
    }
  }
  ASSERT_TRUE(load((dir / "a.dat").string(), d));
  EXPECT_TRUE(d.is_legacy);
  EXPECT_EQ(d.chunk_count, 3);
  ASSERT_EQ(d.entries.size(), 2u);
  const LlamaEntry& q = d.entries.at("blk.0.attn_q.weight");
  const InputStats& s = m.inputs.at("blk.0.attn_q.weight")[0];
  ASSERT_EQ(q.counts, std::vector<std::int64_t>{3});
  EXPECT_FLOAT_EQ(q.sums[2] / 3, static_cast<float>(s.sum_square[2] / 1300));
}

}  // namespace
}  // namespace narrow::calib
