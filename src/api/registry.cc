#include "narrow/registry.h"

#include <algorithm>

#include "model/arch/registry.h"
#include "pipeline/int8_file.h"
#include "pipeline/mixes.h"
#include "pipeline/transform.h"
#include "quant/quantizer.h"

namespace narrow {
namespace {

std::string describe(const FormatInfo& f) {
  switch (f.kind) {
    case FormatKind::kFloat:
      return "floats";
    case FormatKind::kInteger:
      return "integers, for indices and masks";
    case FormatKind::kQuantized:
      break;
  }
  return fmt::format("blocks of {} weights in {} bytes", f.block_size, f.block_bytes);
}

}  // namespace

std::vector<TypeRow> list_types() {
  std::vector<TypeRow> rows;
  for (const FormatInfo& f : all_formats()) {
    rows.push_back({std::string(f.name), f.bpw(), f.block_size, f.block_bytes, f.decode != nullptr,
                    f.can_encode(), describe(f)});
  }
  return rows;
}

std::vector<MixRow> list_mixes() {
  std::vector<MixRow> rows;
  for (const pipeline::Mix& m : pipeline::all_mixes()) {
    rows.push_back({std::string(m.name), std::string(format_info(m.base).name), pipeline::typical_bpw(m),
                    std::string(m.description)});
  }
  for (const pipeline::Int8Type& t : pipeline::int8_types()) {
    const Format base = t.settings.weight_bits == 8 ? Format::kI8 : Format::kQ4_0;
    rows.push_back({std::string(t.name), std::string(format_info(base).name), t.typical_bpw,
                    std::string(t.description)});
  }
  return rows;
}

std::vector<MethodRow> list_methods() {
  std::vector<MethodRow> rows;
  for (const quant::Method& m : quant::all_methods()) {
    rows.push_back({std::string(m.name), std::string(m.description), m.needs != quant::Needs::kNothing});
  }
  for (const pipeline::TransformInfo& t : pipeline::all_transforms()) {
    rows.push_back({std::string(t.name), std::string(t.description), t.needs_statistics});
  }
  rows.push_back({"norms", "after another: corrects norm gains and biases layer by layer", true});
  return rows;
}

std::vector<ArchRow> list_architectures() {
  std::vector<ArchRow> rows;
  for (const model::Arch* a : model::all_archs()) {
    auto row = std::find_if(rows.begin(), rows.end(), [&](const ArchRow& r) { return r.name == a->name; });
    if (row == rows.end()) row = rows.insert(rows.end(), {std::string(a->name), {}});
    for (const std::string_view type : a->model_types) row->hf_model_types.emplace_back(type);
  }
  return rows;
}

}  // namespace narrow
