// The output of a quantization while it is made: every finished tensor outlives a kill at any moment.
//
// Beside the output OUT lie OUT.partial (one for each part of a split output), laid out whole from the start,
// and OUT.partial.json, the journal, one JSON object per line: what is made of what, then the tensors as they
// are finished, each with a checksum, and the run's own state. The journal is locked while a job is open. A
// tensor counts as finished for the next run only if its stored bytes still have their checksum, so that a
// power cut may cost work and never gives a wrong file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/gguf/metadata.h"
#include "narrow/progress.h"
#include "narrow/result.h"
#include "tensor/tensor.h"

namespace narrow::pipeline {

struct JobOptions {
  std::filesystem::path output;
  std::uint64_t split_max_bytes = 0;  // 0: one file
  std::string recipe;                 // quantize_recipe(): the options that decide the output's bytes
  std::string source_digest;          // ModelSource::digest()
  bool resume = false;                // go on with what an earlier run left; fresh where there is nothing
};

// Where the tensors of an output go. Tensors may be finished in any order; thread-safe.
class TensorStore {
 public:
  virtual ~TensorStore() = default;
  virtual bool finished(std::size_t index) const = 0;
  // Bytes of an unfinished tensor from `byte_offset` on, in any order. kInternal outside of the tensor.
  virtual Status write(std::size_t index, std::uint64_t byte_offset, std::span<const std::byte> data) = 0;
  // Every byte was written (else kInternal). `note` is small and stays with the tensor, e.g. its loss.
  virtual Status finish_tensor(std::size_t index, const nlohmann::json& note = nullptr) = 0;
  // All stored bytes of a finished tensor.
  virtual Status read(std::size_t index, std::byte* out) const = 0;
};

class QuantizeJob final : public TensorStore {
 public:
  // Types, shapes and metadata are final: the layout follows from them. Errors: kRefused: an earlier run's
  // finished tensors are there and `resume` is off; or they were made by other options, from another source
  // or by another version; or another process works on them; or a file that is not ours is in the way.
  // kNoSpace: the disk has too little room. Notes what is resumed.
  static Result<std::unique_ptr<QuantizeJob>> open(const JobOptions& options,
                                                   const io::gguf::Metadata& metadata,
                                                   std::vector<TensorInfo> tensors, ProgressSink& progress);
  // Keeps the partial output if a tensor is finished or state is stored, else removes it.
  ~QuantizeJob() override;
  QuantizeJob(const QuantizeJob&) = delete;
  QuantizeJob& operator=(const QuantizeJob&) = delete;

  // All below are thread-safe. Tensors are numbered as in open(), and may be finished in any order.
  const std::vector<TensorInfo>& tensors() const;
  bool finished(std::size_t index) const override;
  std::size_t finished_count() const;

  Status write(std::size_t index, std::uint64_t byte_offset, std::span<const std::byte> data) override;
  Status finish_tensor(std::size_t index, const nlohmann::json& note = nullptr) override;
  nlohmann::json note(std::size_t index) const;  // null for an unfinished tensor
  Status read(std::size_t index, std::byte* out) const override;

  // State of the run that is no tensor (a damping that was chosen, corrections), kept for resumed runs. The
  // last value of a key counts. Values must not depend on time or threads.
  Status put(const std::string& key, nlohmann::json value);
  std::optional<nlohmann::json> get(std::string_view key) const;

  // Every tensor is finished (else kInternal): flushes, renames into place and removes the journal. A kill in
  // between is settled by the next run. Returns paths().
  Result<std::vector<std::filesystem::path>> commit();

  // Ends a run that failed with `e`; no call may follow. Keeps the finished tensors, and says so in the error
  // returned, where the same command can go on later (cancelled, full disk, out of memory...); removes all
  // where it would only fail again (bad input), or nothing is finished.
  Error abandon(const Error& e);

  const std::vector<std::filesystem::path>& paths() const;  // the final ones
  std::uint64_t file_bytes() const;                         // of all parts

 private:
  struct Impl;
  explicit QuantizeJob(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Before anything long: the errors of QuantizeJob::open about an earlier run's work, or another process's, as
// far as they are known without the layout.
Status check_earlier_run(const JobOptions& options);

// What an earlier run put() in the journal beside `output`, if it has this recipe and source; for state that
// decides the layout itself, e.g. a measured plan. nullopt where there is no such run or key.
std::optional<nlohmann::json> stored_state(const JobOptions& options, std::string_view key);

// A run that was killed while it renamed its finished files: the rest is done. True if such a run, with this
// recipe and source, was completed now: nothing is left to do. `files` gets its paths.
Result<bool> settle_commit(const JobOptions& options, std::vector<std::filesystem::path>* files);

}  // namespace narrow::pipeline
