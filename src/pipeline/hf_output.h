// A Hugging Face folder that appears whole or not at all.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "io/hf_config/hf_folder.h"
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

// A float type's name in config.json.
std::string_view torch_dtype(Format f);

// What lies beside the weights: config.json with the token ids, and with `quantization` as its
// quantization_config where that is not null; the tokenizer's files. Notes a model without a tokenizer.
Status write_hf_sides(const model::ModelSource& source, const std::string& config_json,
                      const io::Json& quantization, const std::filesystem::path& folder,
                      ConvertReport& report);

// Gives the folder its name, and report.files what is in it.
Status commit_hf_folder(TempFolder& folder, const std::filesystem::path& output, ConvertReport& report);

// `source` as safetensors with config.json, generation_config.json and the tokenizer's files. `type`: of
// every tensor; unset: as stored, quantized ones as f32.
Result<ConvertReport> write_hf_folder(std::shared_ptr<const model::ModelSource> source,
                                      const std::filesystem::path& output, std::optional<Format> type,
                                      std::uint64_t shard_max_bytes, ProgressSink& progress);

}  // namespace narrow::pipeline
