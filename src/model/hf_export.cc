// The way back: canonical tensors under Hugging Face's names and in its layout.
#include <algorithm>

#include "model/arch/registry.h"
#include "model/layout.h"
#include "model/source.h"

namespace narrow::model {
namespace {

class Export : public HfExport {
 public:
  Export(std::shared_ptr<const ModelSource> source, Json config)
      : source_(std::move(source)), config_(std::move(config)) {}

  Status load() {
    const std::string prefix(arch_of(source_->config()).prefixes.front());
    for (TensorRule& rule : tensor_map(source_->config())) {
      if (rule.layout == Layout::kValues) continue;
      const auto canonical = source_->find(rule.name);
      if (!canonical) {
        return make_error(ErrorCode::kInternal, "{}: tensor '{}' is missing", source_->path().string(),
                          rule.name);
      }
      const Format format = source_->tensors()[*canonical].format;
      const bool plain = format == Format::kF16 || format == Format::kBF16 || format == Format::kF64;
      for (std::size_t i = 0; i < rule.hf.size(); ++i) {
        std::string name = rule.hf[i];
        if (name.starts_with('@')) name = prefix + name.substr(1);
        infos_.push_back({std::move(name), plain ? format : Format::kF32, hf_shape(rule)});
        parts_.push_back({rules_.size(), i, *canonical});
      }
      rules_.push_back(std::move(rule));
    }
    return {};
  }

  const std::vector<TensorInfo>& tensors() const override { return infos_; }

  Status read_f32(std::size_t index, std::vector<float>& out) const override {
    const Part& part = parts_[index];
    const TensorRule& rule = rules_[part.rule];
    out.resize(static_cast<std::size_t>(infos_[index].shape.elements()));
    const std::int64_t rows = rule.layout == Layout::kStack ? rule.shape[1] : rule.shape.rows();
    const std::int64_t first =
        rule.layout == Layout::kStack ? static_cast<std::int64_t>(part.tensor) * rows : 0;
    if (rule.layout == Layout::kCopy || rule.layout == Layout::kStack || rule.layout == Layout::kAddOne) {
      NARROW_TRY(source_->read_f32(part.canonical, first, first + rows, out.data()));
      if (rule.layout == Layout::kAddOne) {
        for (float& g : out) g -= 1.0f;
      }
      return {};
    }
    const std::int64_t k = rule.shape.row_length();
    const Units units = units_of(rule);
    constexpr std::int64_t kStep = 64;  // rows; bounds the copy in canonical layout
    std::vector<float> chunk(static_cast<std::size_t>(std::min(kStep, rows) * k));
    for (std::int64_t r = 0; r < rows; r += kStep) {
      const std::int64_t end = std::min(rows, r + kStep);
      NARROW_TRY(source_->read_f32(part.canonical, r, end, chunk.data()));
      if (rule.layout == Layout::kTranspose) {
        const std::int64_t n = rule.shape[0];
        for (std::int64_t i = 0; i < k; ++i) {
          for (std::int64_t c = r; c < end; ++c) {
            out[static_cast<std::size_t>(i * n + c)] = chunk[static_cast<std::size_t>((c - r) * k + i)];
          }
        }
        continue;
      }
      const std::int64_t first_unit = r * k / units.length, last_unit = end * k / units.length;
      for (std::int64_t u = first_unit; u < last_unit; ++u) {
        const std::int64_t to = source_of(rule, u).unit * units.length,
                           from = (u - first_unit) * units.length;
        std::copy_n(chunk.begin() + from, units.length, out.begin() + to);
      }
    }
    return {};
  }

  Origin origin(std::size_t index) const override {
    const Part& part = parts_[index];
    const TensorRule& rule = rules_[part.rule];
    Origin out{part.canonical, {}};
    if (rule.layout == Layout::kTranspose) return out;
    out.rows.resize(static_cast<std::size_t>(infos_[index].shape.rows()));
    for (std::int64_t u = 0; u < units_of(rule).count; ++u) {
      const UnitSource from = source_of(rule, u);
      if (from.tensor == part.tensor) out.rows[static_cast<std::size_t>(from.unit)] = u;
    }
    return out;
  }

  std::string config_json(std::string_view dtype) const override {
    Json j = config_;
    j["dtype"] = dtype;
    j["torch_dtype"] = dtype;  // the name before transformers 5
    const TokenIds ids = source_->token_ids();
    if (ids.bos) j["bos_token_id"] = *ids.bos;
    if (ids.eos.size() == 1) j["eos_token_id"] = ids.eos.front();
    if (ids.eos.size() > 1) j["eos_token_id"] = ids.eos;
    if (ids.pad) j["pad_token_id"] = *ids.pad;
    return j.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  }

 private:
  struct Part {
    std::size_t rule, tensor, canonical;
  };
  std::shared_ptr<const ModelSource> source_;
  Json config_;
  std::vector<TensorRule> rules_;
  std::vector<Part> parts_;  // by HF tensor
  std::vector<TensorInfo> infos_;
};

}  // namespace

Result<std::unique_ptr<HfExport>> HfExport::create(std::shared_ptr<const ModelSource> source) {
  NARROW_ASSIGN(Json config, config_to_hf(source->config()));
  auto out = std::make_unique<Export>(std::move(source), std::move(config));
  NARROW_TRY(out->load());
  return std::unique_ptr<HfExport>(std::move(out));
}

}  // namespace narrow::model
