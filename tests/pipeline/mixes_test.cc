#include "pipeline/mixes.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "testing/testing.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;

// One of llama.cpp's snapshots of the types that llama-quantize chooses for a real model.
struct Schema {
  std::map<std::string, std::int64_t> header;  // n_embd, n_layer, ...
  struct Section {
    std::string file_type, base;
    std::map<std::string, std::string> exceptions;  // tensor -> type
  };
  std::vector<Section> sections;
};

std::string lower(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return s;
}

Schema read_schema(const fs::path& path) {
  Schema schema;
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    if (line.starts_with("# n_embd")) {
      std::istringstream fields(line.substr(2));
      std::string field;
      while (std::getline(fields, field, ',')) {
        const std::size_t eq = field.find('=');
        std::string key = field.substr(0, eq);
        key.erase(0, key.find_first_not_of(' '));
        schema.header[key] = std::stoll(field.substr(eq + 1));
      }
    } else if (line.starts_with('[')) {
      const std::size_t close = line.find(']');
      schema.sections.push_back({lower(line.substr(1, close - 1)), lower(line.substr(close + 2)), {}});
    } else if (!line.empty() && line[0] != '#') {
      const std::size_t space = line.rfind(' ');
      schema.sections.back().exceptions[line.substr(0, space)] = lower(line.substr(space + 1));
    }
  }
  return schema;
}

// What a snapshot does not say: the architecture, and row lengths that n_embd and n_ff do not give.
struct Model {
  std::string file, arch;
  std::int64_t head_dim, n_ff_expert = 0;
  std::map<std::string, std::int64_t> rows = {};  // by the name's part after the layer
};

const std::vector<Model>& models() {
  static const std::vector<Model> kAll = {
      {"meta-llama-3.1-70b-instruct", "llama", 128},
      {"qwen3-0.6b", "qwen3", 128},
      {"qwen3-14b", "qwen3", 128},
      {"gemma-3-4b-it", "gemma3", 256},
      {"gpt-oss-120b", "gpt-oss", 64, 2880},
      {"glm-4.6v", "glm4moe", 128, 1408},
      {"qwen3-coder-next", "qwen3next", 256, 512, {{"ssm_out.weight", 4096}}},
      {"qwen3.5-397b-a17b", "qwen35moe", 256, 1024, {{"ssm_out.weight", 8192}}},
      {"qwen3.6-27b", "qwen35", 256, 0, {{"ssm_out.weight", 6144}}},
      {"step-3.5-flash", "step35", 128, 1280},
      {"nvidia-nemotron-3-nano-30b-a3b",
       "nemotron_h_moe",
       128,
       1856,
       {{"ssm_out.weight", 4096}, {"ffn_down_shexp.weight", 3712}}},
      {"deepseek-v3.1",
       "deepseek2",
       128,
       2048,
       {{"attn_k_b.weight", 128},
        {"attn_v_b.weight", 512},
        {"attn_q_b.weight", 1536},
        {"attn_output.weight", 16384}}},
  };
  return kAll;
}

std::string after_layer(const std::string& name) {
  return name.starts_with("blk.") ? name.substr(name.find('.', 4) + 1) : name;
}

// Every tensor that a snapshot names in any section, with the shape that such a model has.
std::vector<TensorInfo> tensors_of(const Schema& schema, const Model& m) {
  std::set<std::string> names;
  for (const auto& s : schema.sections) {
    for (const auto& [name, type] : s.exceptions) names.insert(name);
  }
  const std::int64_t n_embd = schema.header.at("n_embd");
  std::vector<TensorInfo> out;
  for (const std::string& name : names) {
    const std::string part = after_layer(name);
    std::int64_t k = n_embd;
    if (part == "attn_output.weight") k = schema.header.at("n_head") * m.head_dim;
    if (part == "ffn_down.weight") k = schema.header.at("n_ff");
    if (part == "ffn_down_exps.weight" || part == "ffn_down_shexp.weight") k = m.n_ff_expert;
    if (const auto it = m.rows.find(part); it != m.rows.end()) k = it->second;
    const bool stacked = part.find("_exps.") != std::string::npos || part == "attn_k_b.weight";
    out.push_back({name, Format::kF32, stacked ? Shape{4, 32, k} : Shape{32, k}});
  }
  return out;
}

ModelTraits traits_of(const Schema& schema, const Model& m) {
  const auto get = [&](const std::string& key) {
    const auto it = schema.header.find(key);
    return it == schema.header.end() ? std::int64_t{0} : it->second;
  };
  return {m.arch, get("n_layer"), get("n_head"), get("n_head_kv"), get("n_expert")};
}

TEST(Mixes, ChooseWhatLlamaQuantizeChooses) {
  NARROW_REQUIRE_SHARED();
  const fs::path folder = testing::shared_data() / "quant-configs" / "llama.cpp-quant-schemas";
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(folder))
    files += entry.path().extension() == ".schema" ? 1 : 0;
  EXPECT_EQ(files, models().size()) << "a snapshot without a row in models()";

  for (const Model& m : models()) {
    const Schema schema = read_schema(folder / (m.file + ".schema"));
    ASSERT_FALSE(schema.sections.empty()) << m.file;
    const std::vector<TensorInfo> tensors = tensors_of(schema, m);
    ASSERT_GT(tensors.size(), 20u) << m.file;
    const bool tied = std::none_of(tensors.begin(), tensors.end(),
                                   [](const TensorInfo& t) { return t.name == "output.weight"; });
    int compared = 0;
    for (const auto& section : schema.sections) {
      const Mix* mix = find_mix(section.file_type);
      ASSERT_NE(mix, nullptr) << section.file_type;
      EXPECT_EQ(format_info(mix->base).name, section.base) << section.file_type;
      ++compared;
      const std::vector<Format> types = mix_types(*mix, traits_of(schema, m), tensors, tied);
      int wrong = 0;
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        // The snapshots keep float types whatever the rows; no other type is without a fallback.
        const Format got = fitting_format(types[i], tensors[i].shape.row_length());
        const auto it = section.exceptions.find(tensors[i].name);
        const std::string& want = it == section.exceptions.end() ? section.base : it->second;
        if (format_info(got).name != want && ++wrong <= 5) {
          ADD_FAILURE() << m.file << " [" << section.file_type << "] " << tensors[i].name << " "
                        << tensors[i].shape.text() << ": " << format_info(got).name << " instead of " << want;
        }
      }
    }
    EXPECT_GE(compared, 33) << m.file;
  }
}

// SmolLM2-135M: rows of 576 hold no super-blocks, so fallbacks count too.
std::vector<TensorInfo> smollm2_matrices() {
  std::vector<TensorInfo> out = {{"token_embd.weight", Format::kF32, {49152, 576}}};
  const std::pair<const char*, Shape> parts[] = {{"attn_q", {576, 576}},    {"attn_k", {192, 576}},
                                                 {"attn_v", {192, 576}},    {"attn_output", {576, 576}},
                                                 {"ffn_gate", {1536, 576}}, {"ffn_up", {1536, 576}},
                                                 {"ffn_down", {576, 1536}}};
  for (int i = 0; i < 30; ++i) {
    for (const auto& [part, shape] : parts) {
      out.push_back({fmt::format("blk.{}.{}.weight", i, part), Format::kF32, shape});
    }
  }
  return out;
}

// What llama-quantize reports as its quantized size for the same model, with an importance matrix.
TEST(Mixes, SizesWithImportancesAreLlamaQuantizes) {
  const std::map<std::string, double> kMebibytes = {{"iq3_xxs", 81.23}, {"iq2_m", 79.92},   {"iq2_s", 79.21},
                                                    {"iq2_xs", 78.95},  {"iq2_xxs", 78.24}, {"iq1_m", 77.35},
                                                    {"iq1_s", 76.82}};
  const std::vector<TensorInfo> tensors = smollm2_matrices();
  for (const auto& [name, mebibytes] : kMebibytes) {
    const std::vector<Format> types =
        mix_types(*find_mix(name), {"llama", 30, 9, 3, 0}, tensors, true, /*importance=*/true);
    std::size_t bytes = 61 * 576 * sizeof(float);  // norms
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const std::int64_t k = tensors[i].shape.row_length();
      bytes += static_cast<std::size_t>(tensors[i].shape.elements() / k) *
               row_bytes(fitting_format(types[i], k), k);
    }
    EXPECT_NEAR(static_cast<double>(bytes) / 0x1p20, mebibytes, 0.006) << name;
  }
}

TEST(Mixes, ImportancesChangeTheseTypesOnly) {
  using enum Format;
  // By mix and part of the model; ffn_down of the first eighth of the layers apart.
  const std::map<std::string, Format> kWith = {
      {"iq3_xxs attn_v", kIQ3_XXS},       {"iq3_xxs first ffn_down", kIQ3_XXS},
      {"iq3_xxs ffn_down", kIQ3_XXS},     {"iq4_nl first ffn_down", kIQ4_NL},
      {"iq4_xs first ffn_down", kIQ4_XS}, {"q4_0 first ffn_down", kQ4_1},
      {"q5_0 first ffn_down", kQ5_1},
  };
  const std::vector<TensorInfo> tensors = smollm2_matrices();
  const ModelTraits traits{"llama", 30, 9, 3, 0};
  std::map<std::string, Format> got;
  for (const Mix& mix : all_mixes()) {
    const std::vector<Format> without = mix_types(mix, traits, tensors, true);
    const std::vector<Format> with = mix_types(mix, traits, tensors, true, true);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (with[i] == without[i]) continue;
      std::string part = after_layer(tensors[i].name);
      part = part.substr(0, part.find('.'));
      const bool first = part == "ffn_down" && std::stoi(tensors[i].name.substr(4)) < 3;
      got[fmt::format("{} {}{}", mix.name, first ? "first " : "", part)] = with[i];
    }
  }
  EXPECT_EQ(got, kWith);
}

TEST(Mixes, NamesAreFoundInAnyCaseAndAliasesAgree) {
  for (const Mix& m : all_mixes()) {
    std::string upper(m.name);
    std::transform(upper.begin(), upper.end(), upper.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    EXPECT_EQ(find_mix(upper), &m);
    if (m.alias_of.empty()) continue;
    const Mix* other = find_mix(m.alias_of);
    ASSERT_NE(other, nullptr);
    EXPECT_EQ(other->base, m.base);
    EXPECT_EQ(other->file_type, m.file_type);
    EXPECT_EQ(other->rules.data(), m.rules.data());
  }
}

TEST(Mixes, UnknownTypesListTheKnownOnes) {
  const auto unknown = require_mix("q9_z");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(unknown.error().message.find("q4_k_m"), std::string::npos) << unknown.error().message;
  EXPECT_TRUE(require_mix("IQ2_XXS").ok());
}

TEST(Mixes, FallBackToFormatsThatHoldTheRows) {
  struct Case {
    Format wanted;
    std::int64_t row;
    Format got;
  };
  using enum Format;
  constexpr Case kCases[] = {
      {kQ4_K, 512, kQ4_K}, {kQ4_K, 576, kQ5_0}, {kQ5_K, 576, kQ5_1}, {kQ6_K, 576, kQ8_0},
      {kQ3_K, 576, kQ4_0}, {kQ2_K, 576, kQ4_0}, {kTQ1_0, 96, kQ4_0}, {kIQ4_XS, 96, kIQ4_NL},
      {kQ4_K, 172, kF16},  {kQ8_0, 172, kF16},  {kMXFP4, 172, kF16}, {kQ8_0, 64, kQ8_0},
      {kF16, 1, kF16},     {kBF16, 3, kBF16},   {kF32, 7, kF32},
  };
  for (const Case& c : kCases) {
    EXPECT_EQ(fitting_format(c.wanted, c.row), c.got) << format_info(c.wanted).name << " " << c.row;
  }
}

// Published sizes of Llama 3.1 8B files give these within 0.02.
TEST(Mixes, TypicalBitsPerWeight) {
  const std::map<std::string, double> kKnown = {{"q8_0", 8.50},   {"q6_k", 6.56},   {"q5_k_m", 5.70},
                                                {"q4_k_m", 4.89}, {"q4_k_s", 4.67}, {"q3_k_m", 4.00},
                                                {"q2_k", 3.16}};
  for (const auto& [name, bpw] : kKnown) EXPECT_NEAR(typical_bpw(*find_mix(name)), bpw, 0.02) << name;
}

}  // namespace
}  // namespace narrow::pipeline
