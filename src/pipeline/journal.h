// An append-only file of JSON objects, one a line, that one process at a time may hold open.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "narrow/result.h"

namespace narrow::pipeline {

class Journal {
 public:
  // Made where it is missing, locked while this object lives. What follows the first damaged or torn line is
  // cut off. kRefused: another process holds it, or the file is no journal (its first line does not begin
  // as a `magic` entry does).
  static Result<Journal> open(const std::filesystem::path& path, std::string_view magic);
  Journal(Journal&& o) noexcept { *this = std::move(o); }
  Journal& operator=(Journal&& o) noexcept;
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;
  ~Journal();

  const std::vector<nlohmann::json>& lines() const { return lines_; }  // as found by open()
  Status append(const nlohmann::json& line);
  Status clear();  // empties it
  Status sync();
  void remove();  // unlinks and unlocks
  const std::filesystem::path& path() const { return path_; }

 private:
  Journal() = default;
  void close();
  std::filesystem::path path_;
  std::vector<nlohmann::json> lines_;
  std::uint64_t end_ = 0;
  int fd_ = -1;
};

// The whole lines of a journal's text up to the first damaged one; `used_bytes` gets their length.
std::vector<nlohmann::json> journal_lines(std::string_view text, std::uint64_t* used_bytes);

}  // namespace narrow::pipeline
