// What the teacher said about windows of text, kept in a file: its likeliest tokens at every position. A
// second run, or a second pass over the text, then needs no teacher.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "train/decoder.h"
#include "train/loss.h"

namespace narrow::train {

struct TeacherCacheSpec {
  std::string teacher;     // digest of the model: a cache of another one is refused
  std::int64_t n_ctx = 0;  // tokens of a window
  std::int64_t k = 64;     // tokens kept at each position
};

// The file: a line of JSON that says what it is, padded to 256 bytes; then records of one window each: a hash
// of its tokens (8 bytes), ids [n_ctx, k] int32, log-probabilities [n_ctx, k] fp32. A record that a kill cut
// short is dropped.
class TeacherCache {
 public:
  // kRefused: a file of another teacher, window or k, or none of ours.
  static Result<std::unique_ptr<TeacherCache>> open(const std::filesystem::path& path,
                                                    const TeacherCacheSpec& spec);
  ~TeacherCache();
  TeacherCache(const TeacherCache&) = delete;
  TeacherCache& operator=(const TeacherCache&) = delete;

  bool holds(const at::Tensor& window) const;  // [n_ctx] int64
  // Of windows [b, n_ctx] int64: [b * n_ctx, k]. What is missing is asked of the teacher, and kept.
  // kNotFound: missing, and there is no teacher. kIo, kNoSpace.
  Result<TeacherTopK> get(const at::Tensor& windows, Decoder* teacher);

 private:
  TeacherCache(std::filesystem::path path, const TeacherCacheSpec& spec)
      : path_(std::move(path)), spec_(spec) {}
  std::int64_t values() const { return spec_.n_ctx * spec_.k; }
  std::int64_t record_bytes() const { return 8 + values() * 8; }
  Status scan();
  Status add(const at::Tensor& window, Decoder& teacher);
  Status read(std::int64_t record, std::int32_t* ids, float* log_probs) const;

  std::filesystem::path path_;
  TeacherCacheSpec spec_;
  int fd_ = -1;
  std::map<std::uint64_t, std::int64_t> records_;  // by hash
};

}  // namespace narrow::train
