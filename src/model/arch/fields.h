// Checked, typed access to config.json and to GGUF's architecture keys. Both readers remember the first
// error, so that an arch file reads all its fields in a row and looks at status() once; after an error
// getters return fallbacks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/gguf/metadata.h"
#include "io/hf_config/hf_folder.h"

namespace narrow::model {

using io::Json;

// Limits that a configuration is held to, so that products of its numbers fit 63 bits.
inline constexpr std::int64_t kMaxLayers = 1024;
inline constexpr std::int64_t kMaxWidth = 1 << 20;  // n_embd, heads * head_dim
inline constexpr std::int64_t kMaxFfn = 1 << 24;
inline constexpr std::int64_t kMaxHeads = 1 << 16;
inline constexpr std::int64_t kMaxHeadDim = 1 << 14;
inline constexpr std::int64_t kMaxVocab = 1 << 24;
inline constexpr std::int64_t kMaxContext = 1ll << 40;
inline constexpr std::int64_t kMaxExperts = 1 << 12;

// A JSON object of config.json. A key whose value is null counts as absent.
class HfFields {
 public:
  HfFields(const Json& object, std::string file) : object_(object), file_(std::move(file)) {}
  // A nested object: errors go to the parent and name "outer.inner".
  HfFields(HfFields& parent, const Json& object, std::string_view name)
      : object_(object),
        file_(parent.file_),
        prefix_(parent.prefix_ + std::string(name) + "."),
        root_(parent.root()) {}
  HfFields(const HfFields&) = delete;
  HfFields& operator=(const HfFields&) = delete;

  const Json* find(std::string_view key) const;  // null when absent or JSON null
  bool has(std::string_view key) const { return find(key) != nullptr; }
  // First of `keys` that is there. Without a fallback an absent key is an error.
  std::int64_t integer(std::initializer_list<std::string_view> keys, std::int64_t low, std::int64_t high,
                       std::optional<std::int64_t> fallback = std::nullopt);
  double number(std::initializer_list<std::string_view> keys, double low, double high,
                std::optional<double> fallback = std::nullopt);
  bool boolean(std::string_view key, bool fallback);
  std::string text(std::initializer_list<std::string_view> keys, std::string_view fallback);
  std::vector<double> numbers(std::string_view key);     // empty when absent
  std::vector<std::string> texts(std::string_view key);  // empty when absent

  // Records "<file>: '<key>' is <value>: <why>".
  void reject(std::string_view key, std::string_view why, ErrorCode code = ErrorCode::kCorrupt);
  void fail(Error e);
  bool ok() const { return !root()->error_.has_value(); }
  Status status() const { return ok() ? Status() : Status(*root()->error_); }
  const std::string& file() const { return file_; }

 private:
  HfFields* root() { return root_ ? root_ : this; }
  const HfFields* root() const { return root_ ? root_ : this; }
  const Json& object_;
  std::string file_, prefix_;
  HfFields* root_ = nullptr;
  std::optional<Error> error_;
};

// The keys "<arch>.<key>" of GGUF metadata.
class GgufFields {
 public:
  GgufFields(const io::gguf::Metadata& metadata, std::string arch, std::string file)
      : metadata_(metadata), arch_(std::move(arch)), file_(std::move(file)) {}
  bool has(std::string_view key) const { return metadata_.has(full(key)); }
  // An array whose items are all equal counts as its item.
  std::int64_t integer(std::string_view key, std::int64_t low, std::int64_t high,
                       std::optional<std::int64_t> fallback = std::nullopt);
  double number(std::string_view key, double low, double high, std::optional<double> fallback = std::nullopt);
  bool boolean(std::string_view key, bool fallback);
  std::string text(std::string_view key, std::string_view fallback);
  std::vector<bool> booleans(std::string_view key);  // empty when absent or no array of booleans

  void reject(std::string_view key, std::string_view value, std::string_view why,
              ErrorCode code = ErrorCode::kCorrupt);
  bool ok() const { return !error_.has_value(); }
  Status status() const { return ok() ? Status() : Status(*error_); }
  const std::string& file() const { return file_; }
  const io::gguf::Metadata& metadata() const { return metadata_; }

 private:
  std::string full(std::string_view key) const { return arch_ + "." + std::string(key); }
  void fail(Error e);
  const io::gguf::Metadata& metadata_;
  std::string arch_, file_;
  std::optional<Error> error_;
};

}  // namespace narrow::model
