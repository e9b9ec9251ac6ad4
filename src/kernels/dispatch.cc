#include "kernels/dispatch.h"

#include <cstdlib>

#include "kernels/generic/table.h"
#if defined(__x86_64__)
#include "kernels/avx2/table.h"
#include "kernels/avx512_amx/table.h"
#include "kernels/avx512_vnni/table.h"
#elif defined(__aarch64__)
#include "kernels/neon/table.h"
#include "kernels/neon_i8mm/table.h"
#endif

namespace narrow::kernels {
namespace {

struct Isa {
  std::string_view name;
  const KernelTable& (*table)();  // compiled for that instruction set: call it only where it runs
  bool (*runs_on)(const CpuFeatures&);
  const char* needs;
};

// Best first.
constexpr Isa kIsas[] = {
#if defined(__x86_64__)
    {"avx512_amx", avx512_amx::table, [](const CpuFeatures& f) { return f.avx512_vnni && f.amx_int8; },
     "avx512, avx512_vnni and amx_int8"},
    {"avx512_vnni", avx512_vnni::table, [](const CpuFeatures& f) { return f.avx512_vnni; },
     "avx512 and avx512_vnni"},
    {"avx2", avx2::table, [](const CpuFeatures& f) { return f.avx2 && f.fma && f.f16c; },
     "avx2, fma and f16c"},
#elif defined(__aarch64__)
    {"neon_i8mm", neon_i8mm::table, [](const CpuFeatures& f) { return f.dotprod && f.i8mm; },
     "dotprod and i8mm"},
    {"neon", neon::table, [](const CpuFeatures& f) { return f.neon && f.dotprod; }, "dotprod"},
#endif
    {"generic", generic::table, [](const CpuFeatures&) { return true; }, "nothing"},
};

std::string requested_isa() {
  const char* value = std::getenv("NARROW_ISA");
  return value == nullptr ? "" : value;
}

std::string names_of_available(const CpuFeatures& cpu) {
  std::string names;
  for (const KernelTable* t : available_kernels(cpu)) {
    names += (names.empty() ? "" : ", ") + std::string(t->name);
  }
  return names;
}

}  // namespace

std::vector<const KernelTable*> available_kernels(const CpuFeatures& cpu) {
  std::vector<const KernelTable*> out;
  for (const Isa& isa : kIsas) {
    if (isa.runs_on(cpu)) out.push_back(&isa.table());
  }
  return out;
}

Result<const KernelTable*> select_kernels(std::string_view name, const CpuFeatures& cpu) {
  if (name.empty()) return available_kernels(cpu).front();
  for (const Isa& isa : kIsas) {
    if (isa.name != name) continue;
    if (isa.runs_on(cpu)) return &isa.table();
    return make_error(ErrorCode::kUnsupported, "NARROW_ISA={}: this processor lacks it ({} needed); use {}",
                      name, isa.needs, names_of_available(cpu));
  }
  return make_error(ErrorCode::kInvalidArgument,
                    "NARROW_ISA={}: no such instruction set in this build; use {}", name,
                    names_of_available(cpu));
}

const Result<const KernelTable*>& selected_kernels() {
  static const Result<const KernelTable*> selected = select_kernels(requested_isa(), cpu_features());
  return selected;
}

const KernelTable& kernels() {
  static const KernelTable& table =
      selected_kernels().ok() ? *selected_kernels().value() : *available_kernels(cpu_features()).front();
  return table;
}

std::string isa_description() {
  const std::string requested = requested_isa();
  const std::string names = names_of_available(cpu_features());
  const std::string why = !selected_kernels().ok() ? selected_kernels().error().message
                          : requested.empty()      ? "the best of " + names + ", which NARROW_ISA can force"
                                                   : "NARROW_ISA=" + requested + " of " + names;
  return fmt::format("{} ({}; cpu: {})", kernels().name, why, cpu_features_text());
}

}  // namespace narrow::kernels
