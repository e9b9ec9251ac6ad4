#include "base/atomic_file.h"

#include <filesystem>

#include "base/digest.h"
#include "base/mapped_file.h"
#include "testing/testing.h"

namespace narrow {
namespace {
namespace fs = std::filesystem;

std::size_t entries(const fs::path& dir) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(dir), fs::directory_iterator()));
}

TEST(AtomicFile, AppearsOnlyOnCommit) {
  testing::TempDir dir;
  {
    ASSERT_OK_AND_ASSIGN(auto f, AtomicFile::create(dir / "a.bin"));
    ASSERT_OK(f.write("hello"));
    EXPECT_FALSE(fs::exists(dir / "a.bin"));
    ASSERT_OK(f.commit());
  }
  EXPECT_EQ(testing::read_file(dir / "a.bin"), "hello");
  EXPECT_EQ(entries(dir.path()), 1u);
}

TEST(AtomicFile, LeavesNothingBehindWithoutCommit) {
  testing::TempDir dir;
  testing::write_file(dir / "a.bin", "old");
  {
    ASSERT_OK_AND_ASSIGN(auto f, AtomicFile::create(dir / "a.bin"));
    ASSERT_OK(f.write("new"));
  }
  EXPECT_EQ(testing::read_file(dir / "a.bin"), "old");
  EXPECT_EQ(entries(dir.path()), 1u);
}

TEST(AtomicFile, AMissingFolderIsAnErrorThatNamesTheFile) {
  auto f = AtomicFile::create("/nonexistent-folder/a.bin");
  ASSERT_FALSE(f.ok());
  EXPECT_EQ(f.error().code, ErrorCode::kIo);
  EXPECT_NE(f.error().message.find("/nonexistent-folder/a.bin"), std::string::npos);
}

TEST(AtomicFile, NeverReplacesADevice) {
  for (const char* device : {"/dev/null", "/dev/full"}) {
    const auto f = AtomicFile::create(device);
    ASSERT_FALSE(f.ok()) << device;
    EXPECT_EQ(f.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(f.error().message.find(device), std::string::npos);
  }
}

TEST(SameFile, SeesThroughLinks) {
  testing::TempDir dir;
  testing::write_file(dir / "a", "x");
  fs::create_symlink(dir / "a", dir / "soft");
  fs::create_hard_link(dir / "a", dir / "hard");
  EXPECT_TRUE(same_file(dir / "a", dir / "soft"));
  EXPECT_TRUE(same_file(dir / "a", dir / "hard"));
  testing::write_file(dir / "b", "x");
  EXPECT_FALSE(same_file(dir / "a", dir / "b"));
  EXPECT_FALSE(same_file(dir / "a", dir / "missing"));
}

TEST(ReadTextFile, WholeWithinTheLimitOrOneError) {
  testing::TempDir dir;
  testing::write_file(dir / "t", "text");
  testing::write_file(dir / "empty", "");
  ASSERT_OK_AND_ASSIGN(const std::string text, read_text_file(dir / "t", 4));
  EXPECT_EQ(text, "text");
  ASSERT_OK_AND_ASSIGN(const std::string empty, read_text_file(dir / "empty", 4));
  EXPECT_EQ(empty, "");
  EXPECT_EQ(read_text_file(dir / "t", 3).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(read_text_file(dir / "missing", 3).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(read_text_file(dir.path(), 3).error().code, ErrorCode::kInvalidArgument);
}

TEST(MappedFile, EmptyMissingAndFolder) {
  testing::TempDir dir;
  testing::write_file(dir / "empty", "");
  ASSERT_OK_AND_ASSIGN(auto f, MappedFile::open(dir / "empty"));
  EXPECT_EQ(f.bytes().size(), 0u);
  EXPECT_EQ(MappedFile::open(dir / "missing").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(MappedFile::open(dir.path()).error().code, ErrorCode::kInvalidArgument);
}

TEST(Digest, Sha256OfKnownText) {
  Sha256 d;
  d.update(std::as_bytes(std::span("abc", 3)));
  EXPECT_EQ(d.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace narrow
