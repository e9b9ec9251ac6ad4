#include "recipe/write_model.h"

#include "formats/format.h"
#include "model/overlay.h"
#include "pipeline/convert.h"

namespace narrow::recipe {

Result<std::vector<std::filesystem::path>> write_model(const train::Decoder& decoder,
                                                       const std::shared_ptr<const model::ModelSource>& base,
                                                       const std::filesystem::path& output,
                                                       const std::string& type,
                                                       const nlohmann::ordered_json& recipe,
                                                       ProgressSink& progress) {
  const auto overlay = std::make_shared<model::OverlaySource>(base);
  bool half = false, quantized = false;
  for (std::size_t i = 0; i < base->tensors().size(); ++i) {
    const TensorInfo& info = base->tensors()[i];
    const at::Tensor w = decoder.weight(info.name);
    if (!w.defined()) continue;
    half = half || info.format == Format::kBF16;
    quantized = quantized || format_info(info.format).kind == FormatKind::kQuantized;
    const at::Tensor values = w.detach().to(at::kCPU, at::kFloat).contiguous();
    const float* p = values.data_ptr<float>();
    const std::int64_t bad = find_non_finite(p, values.numel());
    if (bad >= 0) {
      return make_error(ErrorCode::kNumeric, "{}: trained value {} of '{}' is {}", output.string(), bad,
                        info.name, p[bad]);
    }
    NARROW_TRY(overlay->replace(i, std::vector<float>(p, p + values.numel())));
  }
  ConvertOptions options;
  options.source = base->path();
  options.output = output;
  // In memory all is f32 now. What was quantized is no more.
  options.type = !type.empty() ? type : half ? "bf16" : "f32";
  if (type.empty() && quantized)
    progress.note("the model was quantized; what training changed is written as f32");
  NARROW_ASSIGN(const ConvertReport report, pipeline::convert_source(overlay, options, recipe, progress));
  return report.files;
}

}  // namespace narrow::recipe
