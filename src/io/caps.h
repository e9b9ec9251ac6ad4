// Every limit that a file is held to before one of its numbers is used. A file over a limit is kCorrupt.
#pragma once

#include <cstdint>

namespace narrow::io::caps {

inline constexpr std::uint64_t kMaxTensors = 1u << 20;
inline constexpr std::uint64_t kMaxMetadataKeys = 1u << 16;
inline constexpr std::uint64_t kMaxKeyBytes = 65535;        // GGUF specification
inline constexpr std::uint64_t kMaxNameBytes = 1024;        // tensor names; llama.cpp itself stops at 64
inline constexpr std::uint64_t kMaxStringBytes = 1u << 26;  // one metadata string (chat templates)
inline constexpr std::uint64_t kMaxArrayItems = 1u << 26;   // one metadata array (vocabulary, merges)
inline constexpr std::uint64_t kMaxArrayDepth = 4;
inline constexpr std::uint64_t kMaxElements = 1ull << 42;  // one tensor
inline constexpr std::uint64_t kMaxAlignment = 1u << 20;
inline constexpr std::uint64_t kMaxShards = 4096;
inline constexpr std::uint64_t kMaxSafetensorsHeaderBytes =
    100'000'000;                                          // the safetensors library's own limit
inline constexpr std::uint64_t kMaxJsonBytes = 1u << 28;  // config.json, tokenizer.json, index
inline constexpr int kMaxDims = 4;                        // GGUF; safetensors tensors may have more
inline constexpr int kMaxJsonDepth = 128;

}  // namespace narrow::io::caps
