// A Hugging Face folder that appears whole or not at all.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "model/source.h"
#include "narrow/convert.h"
#include "narrow/progress.h"

namespace narrow::pipeline {

// A folder beside `final_path`, renamed to it by commit(), removed with what is in it otherwise.
class TempFolder {
 public:
  // kRefused when `final_path` is a folder with something in it; kInvalidArgument when it is a file.
  static Result<TempFolder> create(const std::filesystem::path& final_path);
  TempFolder(TempFolder&& o) noexcept;
  TempFolder& operator=(TempFolder&&) = delete;
  ~TempFolder();
  const std::filesystem::path& path() const { return temp_; }
  Status commit();

 private:
  TempFolder(std::filesystem::path temp, std::filesystem::path final_path)
      : temp_(std::move(temp)), final_(std::move(final_path)) {}
  std::filesystem::path temp_, final_;
};

// `source` as safetensors with config.json, generation_config.json and the tokenizer's files. `type`: of
// every tensor; unset: as stored, quantized ones as f32.
Result<ConvertReport> write_hf_folder(std::shared_ptr<const model::ModelSource> source,
                                      const std::filesystem::path& output, std::optional<Format> type,
                                      std::uint64_t shard_max_bytes, ProgressSink& progress);

}  // namespace narrow::pipeline
