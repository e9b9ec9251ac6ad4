// Which kernels this process uses: the best that the processor has, or the one that NARROW_ISA names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/cpu_features.h"
#include "base/result.h"
#include "kernels/kernel_table.h"

namespace narrow::kernels {

// Tables that a processor with these features can run, best first; the last is always generic.
std::vector<const KernelTable*> available_kernels(const CpuFeatures& cpu);

// The table that `name` forces, or the best one for an empty name. kInvalidArgument: no such table in this
// build; kUnsupported: this processor cannot run it. Both list what can be asked for.
Result<const KernelTable*> select_kernels(std::string_view name, const CpuFeatures& cpu);

// The process's choice from NARROW_ISA, made once.
const Result<const KernelTable*>& selected_kernels();

// The table in use. With a NARROW_ISA that cannot be served it is the best one: who starts work
// returns selected_kernels()'s error first.
const KernelTable& kernels();

// "avx512_vnni (the best of avx512_vnni, avx2, generic; cpu: avx2 fma f16c avx512 avx512_vnni)"; the first
// part in the brackets says why: with NARROW_ISA, "NARROW_ISA=avx2 of avx512_vnni, avx2, generic" or its
// error.
std::string isa_description();

}  // namespace narrow::kernels
