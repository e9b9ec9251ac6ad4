// What all block formats share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace narrow::formats {

// Elements of one super-block of the k- and i-quants.
inline constexpr int kSuperBlock = 256;

// Rows come from mapped files at any alignment: blocks are copied in and out, never cast.
template <class Block>
Block load_block(const std::byte* row, std::int64_t index) {
  static_assert(std::is_trivially_copyable_v<Block>);
  Block b;
  std::memcpy(&b, row + index * static_cast<std::int64_t>(sizeof(Block)), sizeof(Block));
  return b;
}

template <class Block>
void store_block(std::byte* row, std::int64_t index, const Block& b) {
  static_assert(std::is_trivially_copyable_v<Block>);
  std::memcpy(row + index * static_cast<std::int64_t>(sizeof(Block)), &b, sizeof(Block));
}

}  // namespace narrow::formats
