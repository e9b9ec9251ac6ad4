#include "io/safetensors/writer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <numeric>
#include <unordered_set>

#include "io/caps.h"
#include "io/hf_config/hf_folder.h"
#include "io/printable.h"
#include "io/safetensors/dtype.h"
#include "io/tensor_output.h"
#include "io/utf8.h"

namespace narrow::io::safetensors {
namespace {

struct Shard {
  std::vector<std::size_t> tensors;    // indices, in order of the data
  std::vector<std::uint64_t> offsets;  // in the data
  std::uint64_t data_bytes = 0;
};

std::string quoted(const std::string& s) { return Json(s).dump(); }

Result<std::vector<std::uint64_t>> check_tensors(const std::vector<TensorInfo>& tensors) {
  if (tensors.size() > caps::kMaxTensors) {
    return make_error(ErrorCode::kInvalidArgument, "{} tensors; the limit is {}", tensors.size(),
                      caps::kMaxTensors);
  }
  std::unordered_set<std::string_view> names;
  std::vector<std::uint64_t> sizes;
  for (const TensorInfo& t : tensors) {
    if (t.name.empty() || t.name.size() > caps::kMaxNameBytes || t.name == "__metadata__" ||
        !valid_utf8(t.name)) {
      return make_error(ErrorCode::kInvalidArgument, "tensor '{}': safetensors cannot hold that name",
                        printable(t.name));
    }
    if (!names.insert(t.name).second) {
      return make_error(ErrorCode::kInvalidArgument, "tensor '{}' is there twice", printable(t.name));
    }
    if (!dtype_of_format(t.format)) {
      return make_error(ErrorCode::kUnsupported,
                        "tensor '{}': safetensors has no dtype for {}; choose f32, f16 or bf16",
                        printable(t.name), format_info(t.format).name);
    }
    NARROW_ASSIGN(const std::uint64_t bytes, checked_tensor_bytes(t));
    sizes.push_back(bytes);
  }
  return sizes;
}

std::vector<Shard> lay_out(const std::vector<TensorInfo>& tensors, const std::vector<std::uint64_t>& sizes,
                           std::uint64_t shard_max_bytes) {
  std::vector<Shard> shards(1);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!shards.back().tensors.empty() && shards.back().data_bytes + sizes[i] > shard_max_bytes) {
      shards.emplace_back();
    }
    shards.back().tensors.push_back(i);
    shards.back().data_bytes += sizes[i];
  }
  for (Shard& s : shards) {
    // Wide elements first: every tensor is then aligned to its element, as in files of the safetensors
    // library.
    std::stable_sort(s.tensors.begin(), s.tensors.end(), [&](std::size_t a, std::size_t b) {
      return format_info(tensors[a].format).block_bytes > format_info(tensors[b].format).block_bytes;
    });
    std::uint64_t at = 0;
    for (const std::size_t i : s.tensors) {
      s.offsets.push_back(at);
      at += sizes[i];
    }
  }
  return shards;
}

// The length, the JSON, and spaces up to a multiple of 8.
Result<std::string> encode_header(const Shard& shard, const std::vector<TensorInfo>& tensors,
                                  const std::vector<std::uint64_t>& sizes,
                                  const std::map<std::string, std::string>& metadata) {
  std::string json = "{";
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      json += fmt::format("{}{}:{}", json.back() == '{' ? "" : ",", quoted(key), quoted(value));
    }
    json += '}';
  }
  for (std::size_t n = 0; n < shard.tensors.size(); ++n) {
    const TensorInfo& t = tensors[shard.tensors[n]];
    json += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        json.size() == 1 ? "" : ",", quoted(t.name), *dtype_of_format(t.format),
                        fmt::join(t.shape.dims(), ","), shard.offsets[n],
                        shard.offsets[n] + sizes[shard.tensors[n]]);
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (json.size() > caps::kMaxSafetensorsHeaderBytes) {
    return make_error(ErrorCode::kInvalidArgument,
                      "a header of {} bytes; safetensors allows {}: use smaller shards", json.size(),
                      caps::kMaxSafetensorsHeaderBytes);
  }
  std::string header(sizeof(std::uint64_t), '\0');
  const std::uint64_t n = json.size();
  std::memcpy(header.data(), &n, sizeof n);
  return header + json;
}

std::string encode_index(const std::vector<Shard>& shards, const std::vector<std::string>& names,
                         const std::vector<TensorInfo>& tensors) {
  std::map<std::string, std::string> file_of;
  std::uint64_t total = 0;
  for (std::size_t s = 0; s < shards.size(); ++s) {
    total += shards[s].data_bytes;
    for (const std::size_t i : shards[s].tensors) file_of.emplace(tensors[i].name, names[s]);
  }
  std::string json =
      fmt::format("{{\n  \"metadata\": {{\n    \"total_size\": {}\n  }},\n  \"weight_map\": {{\n", total);
  std::string_view separator = "";
  for (const auto& [tensor, file] : file_of) {
    json += fmt::format("{}    {}: {}", separator, quoted(tensor), quoted(file));
    separator = ",\n";
  }
  return json + "\n  }\n}\n";
}

class FolderWriter final : public Writer {
 public:
  Status open(const std::filesystem::path& folder, const std::vector<TensorInfo>& tensors,
              const WriterOptions& options) {
    NARROW_ASSIGN(const std::vector<std::uint64_t> sizes, check_tensors(tensors));
    for (const auto& [key, value] : options.metadata) {
      if (!valid_utf8(key) || !valid_utf8(value)) {
        return make_error(ErrorCode::kInvalidArgument, "metadata key '{}' is not UTF-8", printable(key));
      }
    }
    const std::vector<Shard> shards = lay_out(tensors, sizes, options.shard_max_bytes);
    if (shards.size() > caps::kMaxShards) {
      return make_error(ErrorCode::kInvalidArgument, "{} shards; the limit is {}: allow larger shards",
                        shards.size(), caps::kMaxShards);
    }
    const bool sharded = shards.size() > 1;
    std::error_code ec;
    if (sharded && std::filesystem::exists(folder / "model.safetensors", ec)) {
      return make_error(
          ErrorCode::kRefused,
          "the folder holds a model.safetensors, which readers would take instead of the shards: remove it");
    }
    std::vector<std::string> headers, names;
    std::uint64_t total = 0;
    for (std::size_t s = 0; s < shards.size(); ++s) {
      NARROW_ASSIGN(std::string header, encode_header(shards[s], tensors, sizes, options.metadata));
      total += header.size() + shards[s].data_bytes;
      headers.push_back(std::move(header));
      names.push_back(sharded ? fmt::format("model-{:05d}-of-{:05d}.safetensors", s + 1, shards.size())
                              : "model.safetensors");
    }
    NARROW_TRY(TensorOutput::check_space(folder, total));

    std::vector<std::pair<std::size_t, std::uint64_t>> place(tensors.size());  // file, offset
    for (std::size_t s = 0; s < shards.size(); ++s) {
      NARROW_TRY(output_.add_file(folder / names[s], headers[s], headers[s].size() + shards[s].data_bytes));
      for (std::size_t n = 0; n < shards[s].tensors.size(); ++n) {
        place[shards[s].tensors[n]] = {s, headers[s].size() + shards[s].offsets[n]};
      }
    }
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      output_.add_tensor(tensors[i].name, place[i].first, place[i].second, sizes[i]);
    }
    if (sharded) {
      const std::string index = encode_index(shards, names, tensors);
      NARROW_TRY(output_.add_file(folder / "model.safetensors.index.json", index, index.size()));
    }
    return {};
  }

  Status write(std::size_t index, std::uint64_t byte_offset, std::span<const std::byte> data) override {
    return output_.write(index, byte_offset, data);
  }
  Status finish() override { return output_.finish(); }
  const std::vector<std::filesystem::path>& paths() const override { return output_.paths(); }

 private:
  TensorOutput output_;
};

}  // namespace

Result<std::unique_ptr<Writer>> Writer::create(const std::filesystem::path& folder,
                                               std::vector<TensorInfo> tensors,
                                               const WriterOptions& options) {
  std::error_code ec;
  if (!std::filesystem::is_directory(folder, ec)) {
    return make_error(ErrorCode::kNotFound, "{}: no such folder: make it first", folder.string());
  }
  try {
    auto writer = std::make_unique<FolderWriter>();
    if (const Status s = writer->open(folder, tensors, options); !s.ok()) {
      const Error& e = s.error();
      return e.message.starts_with(folder.string()) ? e : with_context(e, folder.string());
    }
    return std::unique_ptr<Writer>(std::move(writer));
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kOutOfMemory, "{}: not enough memory for the header", folder.string());
  }
}

}  // namespace narrow::io::safetensors
