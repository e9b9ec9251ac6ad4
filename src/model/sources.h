// The two kinds of ModelSource, and what they share. Private to this folder.
#pragma once

#include "base/digest.h"
#include "base/mapped_file.h"
#include "model/source.h"

namespace narrow::model {

Result<std::shared_ptr<const ModelSource>> open_gguf(const std::filesystem::path& path);
Result<std::shared_ptr<const ModelSource>> open_hf(const std::filesystem::path& folder);

Status check_rows(const TensorInfo& t, std::int64_t row_begin, std::int64_t row_end);
Result<std::string> digest_of(const std::vector<MappedFile>& files);

}  // namespace narrow::model
