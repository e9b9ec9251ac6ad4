#include "pipeline/job.h"

#include <cstring>

#include "base/partial_file.h"
#include "base/rng.h"
#include "io/gguf/reader.h"
#include "io/gguf/writer.h"
#include "testing/file_size_limit.h"
#include "testing/testing.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

const std::vector<TensorInfo> kTensors = {
    {"a", Format::kF32, {4, 100}}, {"b", Format::kQ8_0, {3, 64}}, {"c", Format::kF32, {1000}}};

io::gguf::Metadata metadata() {
  io::gguf::Metadata m;
  m.set_string("general.architecture", "llama");
  return m;
}

std::vector<std::byte> data_of(std::size_t index) {
  std::vector<std::byte> data(kTensors[index].bytes());
  Rng rng(index + 1);
  for (std::byte& b : data) b = static_cast<std::byte>(rng.next_u64());
  return data;
}

JobOptions options(const fs::path& output, bool resume) {
  return {output, 0, R"({"type":"q4_0","method":"rtn"})", "sha256:1", resume};
}

Result<std::unique_ptr<QuantizeJob>> open_job(const JobOptions& o) {
  return QuantizeJob::open(o, metadata(), kTensors, null_progress());
}

// In pieces from the back, as any order is allowed.
Status fill(QuantizeJob& job, std::size_t index) {
  const std::vector<std::byte> data = data_of(index);
  const std::span<const std::byte> all(data);
  const std::size_t half = data.size() / 2;
  NARROW_TRY(job.write(index, half, all.subspan(half)));
  NARROW_TRY(job.write(index, 0, all.first(half)));
  return job.finish_tensor(index, {{"loss", 0.1 * static_cast<double>(index + 1)}});
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> out;
  for (const auto& e : fs::directory_iterator(folder)) out.push_back(e.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

// What an undisturbed run gives.
std::string whole_file(const fs::path& folder, const JobOptions& like) {
  JobOptions o = like;
  o.output = folder / "undisturbed.gguf";
  const auto job = open_job(o);
  EXPECT_OK(job.status());
  for (std::size_t i = 0; i < kTensors.size(); ++i) EXPECT_OK(fill(**job, i));
  const auto files = (*job)->commit();
  EXPECT_OK(files.status());
  std::string bytes;
  for (const auto& file : *files) {
    bytes += testing::read_file(file);
    fs::remove(file);
  }
  return bytes;
}

TEST(Job, WritesWhatTheWriterWrites) {
  const TempDir dir;
  const std::string bytes = whole_file(dir.path(), options({}, false));
  EXPECT_TRUE(names_in(dir.path()).empty()) << "journal and partial file are gone";
  ASSERT_OK_AND_ASSIGN(auto writer, io::gguf::Writer::create(dir / "w.gguf", metadata(), kTensors));
  for (std::size_t i = 0; i < kTensors.size(); ++i) ASSERT_OK(writer->write(i, 0, data_of(i)));
  ASSERT_OK(writer->finish());
  EXPECT_EQ(bytes, testing::read_file(dir / "w.gguf"));
}

TEST(Job, ResumesWithTensorsNotesAndState) {
  const TempDir dir;
  const std::string expected = whole_file(dir.path(), options({}, false));
  {
    ASSERT_OK_AND_ASSIGN(auto job, open_job(options(dir / "out.gguf", false)));
    ASSERT_OK(fill(*job, 2));
    ASSERT_OK(job->put("damping", {{"a", 0.1}}));
    ASSERT_OK(job->put("damping", {{"a", 1.0 / 3}}));
    ASSERT_OK(job->write(0, 0, data_of(1)));  // half-written: worth nothing
  }
  EXPECT_EQ(names_in(dir.path()), (std::vector<std::string>{"out.gguf.partial", "out.gguf.partial.json"}));
  EXPECT_EQ(stored_state(options(dir / "out.gguf", true), "damping"), nlohmann::json({{"a", 1.0 / 3}}));
  EXPECT_EQ(stored_state(options(dir / "out.gguf", true), "other"), std::nullopt);
  ASSERT_OK_AND_ASSIGN(auto job, open_job(options(dir / "out.gguf", true)));
  EXPECT_FALSE(job->finished(0));
  EXPECT_FALSE(job->finished(1));
  ASSERT_TRUE(job->finished(2));
  EXPECT_EQ(job->finished_count(), 1u);
  EXPECT_EQ(job->note(2)["loss"], 0.1 * 3);
  EXPECT_EQ(job->get("damping"), nlohmann::json({{"a", 1.0 / 3}}));
  std::vector<std::byte> read(kTensors[2].bytes());
  ASSERT_OK(job->read(2, read.data()));
  EXPECT_EQ(read, data_of(2));
  EXPECT_EQ(job->read(0, read.data()).error().code, ErrorCode::kInternal);
  EXPECT_EQ(job->write(2, 0, data_of(2)).error().code, ErrorCode::kInternal);
  EXPECT_EQ(job->commit().status().error().code, ErrorCode::kInternal) << "two tensors are missing";
  EXPECT_EQ(job->finish_tensor(0).error().code, ErrorCode::kInternal) << "not written by this run";
  ASSERT_OK(fill(*job, 0));
  ASSERT_OK(fill(*job, 1));
  ASSERT_OK(job->commit().status());
  EXPECT_EQ(testing::read_file(dir / "out.gguf"), expected);
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"out.gguf"});
}

// Whatever a kill or a power cut does to the two files, the resumed run ends with the same bytes.
TEST(Job, AnyDamageCostsWorkOnly) {
  const TempDir dir;
  const std::string expected = whole_file(dir.path(), options({}, false));
  const fs::path out = dir / "out.gguf", partial = dir / "out.gguf.partial";
  const fs::path journal = dir / "out.gguf.partial.json";
  {
    ASSERT_OK_AND_ASSIGN(auto job, open_job(options(out, false)));
    ASSERT_OK(fill(*job, 1));
    ASSERT_OK(fill(*job, 0));
  }
  const std::string lines = testing::read_file(journal), stored = testing::read_file(partial);
  struct Case {
    std::string name, lines, stored;
    std::size_t finished;
  };
  std::vector<Case> cases;
  const std::size_t first = lines.find('\n') + 1, second = lines.find('\n', first) + 1;
  for (std::size_t n = 0; n <= lines.size(); n += 7) {
    cases.push_back(
        {fmt::format("journal cut at {}", n), lines.substr(0, n), stored, n < second ? std::size_t{0} : 1u});
  }
  cases.push_back({"whole", lines, stored, 2});
  cases.push_back({"zeros at the end", lines + std::string(100, '\0'), stored, 2});
  cases.push_back(
      {"a damaged line", lines.substr(0, second) + "{\"tensor\":\x01}\n" + lines.substr(second), stored, 1});
  std::string flipped = stored;
  flipped[flipped.size() - 4 * 1000 - 300] = static_cast<char>(flipped[flipped.size() - 4 * 1000 - 300] ^ 1);
  cases.push_back({"a flipped bit in tensor a", lines, flipped, 1});
  cases.push_back({"no data", lines, std::string(stored.size(), '\0'), 0});
  cases.push_back({"data cut off", lines, stored.substr(0, 500), 0});
  for (const Case& c : cases) {
    testing::write_file(journal, c.lines);
    testing::write_file(partial, c.stored);
    if (c.lines.size() < first) fs::remove(partial);  // the journal's first line is on the disk before it
    auto job = open_job(options(out, true));
    ASSERT_TRUE(job.ok()) << c.name << ": " << job.error().message;
    EXPECT_EQ((*job)->finished_count(), c.finished) << c.name;
    for (std::size_t i = 0; i < kTensors.size(); ++i) {
      if ((*job)->finished(i)) continue;
      ASSERT_OK(fill(**job, i));
    }
    ASSERT_OK((*job)->commit().status());
    EXPECT_EQ(testing::read_file(out), expected) << c.name;
    fs::remove(out);
  }
}

TEST(Job, RefusesWhatItCannotGoOnWith) {
  const TempDir dir;
  const fs::path out = dir / "out.gguf";
  {
    ASSERT_OK_AND_ASSIGN(auto job, open_job(options(out, false)));
    ASSERT_OK(fill(*job, 1));
  }
  const std::vector<std::string> before = names_in(dir.path());
  const std::string lines = testing::read_file(dir / "out.gguf.partial.json");
  const auto expect_refused = [&](const JobOptions& o, const std::vector<TensorInfo>& tensors,
                                  const std::vector<std::string>& words) {
    const auto job = QuantizeJob::open(o, metadata(), tensors, null_progress());
    ASSERT_FALSE(job.ok()) << words.front();
    EXPECT_EQ(job.error().code, ErrorCode::kRefused) << job.error().message;
    for (const std::string& w : words) {
      EXPECT_NE(job.error().message.find(w), std::string::npos) << w << ": " << job.error().message;
    }
    EXPECT_EQ(names_in(dir.path()), before);
    EXPECT_EQ(testing::read_file(dir / "out.gguf.partial.json"), lines);
    // All but another layout is told before anything long.
    const Status early = check_earlier_run(o);
    EXPECT_EQ(early.ok() ? "" : early.error().message, words[0] == "layout" ? "" : job.error().message);
  };
  expect_refused(options(out, false), kTensors, {"1 of 3 tensors", "--resume", "out.gguf.partial.json"});
  JobOptions o = options(out, true);
  o.recipe = R"({"type":"q5_0","method":"rtn"})";
  expect_refused(o, kTensors, {"other options", "'type' was \"q4_0\" and is \"q5_0\""});
  o = options(out, true);
  o.recipe = R"({"type":"q4_0","method":"rtn","seed":3})";
  expect_refused(o, kTensors, {"'seed' was not set and is 3"});
  o = options(out, true);
  o.source_digest = "sha256:2";
  expect_refused(o, kTensors, {"another source"});
  std::vector<TensorInfo> other = kTensors;
  other[0].format = Format::kF16;
  expect_refused(options(out, true), other, {"layout"});
  o = options(out, true);
  o.split_max_bytes = 1000;
  expect_refused(o, kTensors, {"layout"});

  // Two at once: the second is told, whether it resumes or not, and does no harm.
  ASSERT_OK_AND_ASSIGN(auto first, open_job(options(out, true)));
  expect_refused(options(out, true), kTensors, {"locked", "another narrow"});
  expect_refused(options(out, false), kTensors, {"locked"});
  for (const std::size_t i : {0, 2}) ASSERT_OK(fill(*first, i));
  ASSERT_OK(first->commit().status());
  first.reset();
  EXPECT_OK(check_earlier_run(options(out, false)));
}

TEST(Job, LeavesFilesOfOthersAlone) {
  for (const char* name : {"out.gguf.partial", "out.gguf.partial.json"}) {
    const TempDir dir;
    testing::write_file(dir / name, "a download");
    for (const bool resume : {false, true}) {
      const auto job = open_job(options(dir / "out.gguf", resume));
      ASSERT_FALSE(job.ok()) << name;
      EXPECT_EQ(job.error().code, ErrorCode::kRefused);
      EXPECT_NE(job.error().message.find("in the way"), std::string::npos) << job.error().message;
      EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{name});
      EXPECT_EQ(testing::read_file(dir / name), "a download");
    }
  }
}

TEST(Job, NothingFinishedLeavesNothing) {
  const TempDir dir;
  for (const bool resume : {false, true}) {
    ASSERT_OK_AND_ASSIGN(auto job, open_job(options(dir / "out.gguf", resume)));
    ASSERT_OK(job->write(0, 0, data_of(1)));
    job.reset();
    EXPECT_TRUE(names_in(dir.path()).empty());
  }
  // Nor does a run that was killed before its first tensor stop the next one, whatever its options were.
  {
    ASSERT_OK_AND_ASSIGN(auto job, open_job(options(dir / "out.gguf", false)));
    fs::copy_file(dir / "out.gguf.partial", dir / "copy.partial");
    fs::copy_file(dir / "out.gguf.partial.json", dir / "copy.json");
  }
  fs::rename(dir / "copy.partial", dir / "out.gguf.partial");
  fs::rename(dir / "copy.json", dir / "out.gguf.partial.json");
  JobOptions o = options(dir / "out.gguf", false);
  o.recipe = "{}";
  ASSERT_OK(open_job(o).status());
}

TEST(Job, AbandonKeepsWhatCanBeGoneOnWith) {
  struct Case {
    ErrorCode code;
    bool kept;
  };
  for (const Case& c : {Case{ErrorCode::kCancelled, true}, Case{ErrorCode::kNoSpace, true},
                        Case{ErrorCode::kOutOfMemory, true}, Case{ErrorCode::kNumeric, false},
                        Case{ErrorCode::kCorrupt, false}, Case{ErrorCode::kRefused, false}}) {
    for (const bool work : {true, false}) {
      const TempDir dir;
      ASSERT_OK_AND_ASSIGN(auto job, open_job(options(dir / "out.gguf", false)));
      if (work) ASSERT_OK(fill(*job, 0));
      const Error e = job->abandon({c.code, "went wrong"});
      EXPECT_EQ(e.code, c.code);
      EXPECT_TRUE(e.message.starts_with("went wrong")) << e.message;
      EXPECT_EQ(e.message.find("--resume") != std::string::npos, work && c.kept) << e.message;
      EXPECT_EQ(names_in(dir.path()).size(), work && c.kept ? 2u : 0u);
      job.reset();
      EXPECT_EQ(names_in(dir.path()).size(), work && c.kept ? 2u : 0u);
    }
  }
}

// A kill between the renames of a split output's parts, and between the last one and the journal's end.
TEST(Job, AnInterruptedCommitIsSettled) {
  for (std::size_t renamed = 0; renamed <= 3; ++renamed) {
    for (const bool resume : {true, false}) {
      const TempDir dir;
      JobOptions o = options(dir / "out.gguf", false);
      o.split_max_bytes = 1000;
      const std::string expected = whole_file(dir.path(), o);
      ASSERT_OK_AND_ASSIGN(auto job, open_job(o));
      ASSERT_EQ(job->paths().size(), 3u);
      for (std::size_t i = 0; i < kTensors.size(); ++i) ASSERT_OK(fill(*job, i));
      const fs::path journal = dir / "out.gguf.partial.json";
      const std::string lines = testing::read_file(journal);
      const std::vector<fs::path> paths = job->paths();
      ASSERT_OK(job->commit().status());
      testing::write_file(journal, lines + "{\"commit\":true}\n");
      for (std::size_t p = renamed; p < paths.size(); ++p)
        fs::rename(paths[p], PartialFile::partial_path(paths[p]));

      o.resume = resume;
      std::vector<fs::path> files;
      ASSERT_OK_AND_ASSIGN(const bool complete, settle_commit(o, &files));
      EXPECT_TRUE(complete);
      EXPECT_EQ(files, paths);
      std::string bytes;
      for (const auto& file : paths) bytes += testing::read_file(file);
      EXPECT_EQ(bytes, expected) << renamed;
      EXPECT_EQ(names_in(dir.path()).size(), 3u);
      ASSERT_OK_AND_ASSIGN(const bool again, settle_commit(o, &files));
      EXPECT_FALSE(again) << "nothing is left";
    }
  }
}

TEST(Job, FullDiskKeepsWhatIsFinished) {
  const TempDir dir;
  const std::string expected = whole_file(dir.path(), options({}, false));
  {
    const testing::FileSizeLimit limit(1024);
    const auto job = open_job(options(dir / "out.gguf", false));
    ASSERT_FALSE(job.ok());
    EXPECT_EQ(job.error().code, ErrorCode::kNoSpace) << job.error().message;
    EXPECT_TRUE(names_in(dir.path()).empty()) << "the file's size is tried out before the work";
  }
  {
    ASSERT_OK_AND_ASSIGN(auto job, open_job(options(dir / "out.gguf", false)));
    ASSERT_OK(fill(*job, 0));
    Status full;
    {
      const testing::FileSizeLimit limit(2048);
      full = fill(*job, 2);
    }
    ASSERT_FALSE(full.ok());
    const Error e = job->abandon(full.error());
    EXPECT_EQ(e.code, ErrorCode::kNoSpace);
    EXPECT_NE(e.message.find("1 of 3 tensors are finished"), std::string::npos) << e.message;
  }
  ASSERT_OK_AND_ASSIGN(auto job, open_job(options(dir / "out.gguf", true)));
  EXPECT_EQ(job->finished_count(), 1u);
  for (const std::size_t i : {1, 2}) ASSERT_OK(fill(*job, i));
  ASSERT_OK(job->commit().status());
  EXPECT_EQ(testing::read_file(dir / "out.gguf"), expected);
}

}  // namespace
}  // namespace narrow::pipeline
