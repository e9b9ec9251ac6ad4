#include "pipeline/fit_memory.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "base/thread_team.h"
#include "runtime/decoder.h"
#include "runtime/kv_cache/kv_pool.h"

namespace narrow::pipeline {
namespace {

constexpr std::uint64_t kProgramBytes = 96u << 20;  // program, libraries, tokenizer
constexpr std::uint64_t kThreadBytes = 2u << 20;    // scratch of one thread

// The first number of a file; nullopt without one ("max").
std::optional<std::uint64_t> number_in(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::uint64_t n = 0;
  if (in >> n) return n;
  return std::nullopt;
}

// Cached file pages that the group would be given back first.
std::uint64_t reclaimable(const std::filesystem::path& stat) {
  std::ifstream in(stat);
  std::string key;
  for (std::uint64_t n = 0; in >> key >> n;) {
    if (key == "inactive_file" || key == "total_inactive_file") return n;
  }
  return 0;
}

// What is left in this group and all above it, up to the root of its hierarchy.
void tighten(const std::filesystem::path& root, std::string_view group, const char* limit_name,
             const char* used_name, std::uint64_t& available) {
  std::filesystem::path folder = root;
  std::istringstream parts{std::string(group)};
  std::string part;
  do {
    const auto limit = number_in(folder / limit_name), used = number_in(folder / used_name);
    if (limit && used) {
      const std::uint64_t taken = *used - std::min(*used, reclaimable(folder / "memory.stat"));
      available = std::min(available, *limit - std::min(*limit, taken));
    }
    while (std::getline(parts, part, '/') && part.empty()) {
    }
    folder /= part;
  } while (parts);
}

}  // namespace

Result<std::uint64_t> available_memory() {
  std::ifstream info("/proc/meminfo");
  std::uint64_t available = 0;
  for (std::string line; std::getline(info, line);) {
    constexpr std::string_view kKey = "MemAvailable:";
    if (!line.starts_with(kKey)) continue;
    std::istringstream(line.substr(kKey.size())) >> available;
    available *= 1024;
  }
  if (available == 0) {
    return make_error(ErrorCode::kUnsupported,
                      "--fit: this system does not tell its free memory; give --size instead");
  }
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1),
                      group = line.substr(second + 1);
    if (controllers.empty()) {
      tighten("/sys/fs/cgroup", group, "memory.max", "memory.current", available);
    } else if (("," + controllers + ",").find(",memory,") != std::string::npos) {
      tighten("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes", "memory.usage_in_bytes", available);
    }
  }
  return available;
}

Result<std::uint64_t> run_memory(const model::ModelConfig& c, std::int64_t n_ctx) {
  const std::int64_t one_layer[] = {0};
  NARROW_ASSIGN(const auto pool, runtime::KvPool::create({}, c.n_head_kv, c.head_dim, one_layer, n_ctx));
  const double position = pool->bytes_per_position();
  double cache = 0;
  for (const model::LayerConfig& l : c.layers) {
    std::int64_t kept = n_ctx;
    if (l.sliding && c.sliding_window > 0) {
      kept = std::min(kept, c.sliding_window + runtime::kRewindPositions + runtime::kChunk);
    }
    const std::int64_t pages = (kept + kernels::kPagePositions - 1) / kernels::kPagePositions;
    cache += position * static_cast<double>(pages * kernels::kPagePositions);
  }
  const std::int64_t q = c.n_head * c.head_dim, kv = c.n_head_kv * c.head_dim;
  const std::int64_t ffn = 2 * std::max(c.n_ff, c.n_ff_expert);
  // fp32 rows, and the int8 forms of a product's left side.
  const std::int64_t row = 4 * (6 * c.n_embd + 2 * q + 2 * kv + ffn) + 2 * std::max({c.n_embd, q, ffn});
  const std::int64_t rows = std::min(runtime::kChunk, n_ctx);
  return static_cast<std::uint64_t>(cache) + static_cast<std::uint64_t>(rows * row + 4 * c.n_vocab) +
         kProgramBytes + kThreadBytes * static_cast<std::uint64_t>(thread_count());
}

Result<std::uint64_t> fitting_file_bytes(const model::ModelConfig& config, std::int64_t n_ctx,
                                         std::uint64_t available) {
  if (n_ctx < 1 || n_ctx > config.n_ctx_train) {
    return make_error(ErrorCode::kInvalidArgument, "--fit {}: the model has contexts of 1 to {} tokens",
                      n_ctx, config.n_ctx_train);
  }
  NARROW_ASSIGN(const std::uint64_t other, run_memory(config, n_ctx));
  if (available <= other) {
    return make_error(ErrorCode::kOutOfMemory,
                      "--fit {}: {:.0f} MB of memory are free, but a run with this context takes {:.0f} MB "
                      "without any weights; give a smaller context",
                      n_ctx, static_cast<double>(available) / 1e6, static_cast<double>(other) / 1e6);
  }
  return available - other;
}

}  // namespace narrow::pipeline
