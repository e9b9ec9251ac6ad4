// Packing of stored rows into panels, for any instruction set (layout.h). Compiled for the baseline.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed/layout.h"

namespace narrow::kernels::packed {

// As PackedKernel::pack, for panels of `lanes` rows (at most 16). `unsigned_codes`: 8-bit codes are stored
// with their offset of 128, else as signed bytes.
void pack_panel(const Layout& layout, int lanes, bool unsigned_codes, const std::byte* rows,
                std::size_t stride_bytes, std::int64_t n_rows, std::int64_t k, std::byte* panel);

}  // namespace narrow::kernels::packed
