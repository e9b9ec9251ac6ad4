#include "train/teacher_cache.h"

#include <gtest/gtest.h>

#include "runtime/toy_source.h"
#include "testing/testing.h"

namespace narrow::train {
namespace {

constexpr std::int64_t kContext = 8, kKept = 4;

at::Tensor windows(std::int64_t n) {
  return (at::arange(n * kContext, at::kLong) * 7 % 11).view({n, kContext});
}

TEST(TeacherCache, GivesWhatTheTeacherSaidWithoutTheTeacher) {
  const testing::TempDir dir;
  const runtime::ToySource source;
  ASSERT_OK_AND_ASSIGN(const auto teacher, Decoder::create(source));
  const TeacherCacheSpec spec{"sha256:a", kContext, kKept};
  const at::Tensor text = windows(3);
  TeacherTopK first;
  {
    ASSERT_OK_AND_ASSIGN(const auto cache, TeacherCache::open(dir / "cache", spec));
    EXPECT_FALSE(cache->holds(text[1]));
    EXPECT_FALSE(cache->get(text, nullptr).ok());
    ASSERT_OK_AND_ASSIGN(first, cache->get(text, teacher.get()));
  }
  const at::NoGradGuard off;
  const at::Tensor all = at::log_softmax(teacher->logits(text), -1).view({3 * kContext, -1});
  EXPECT_LT((all.gather(-1, first.ids.to(at::kLong)) - first.log_probs).abs().max().item<float>(), 1e-5);
  ASSERT_OK_AND_ASSIGN(const auto again, TeacherCache::open(dir / "cache", spec));
  EXPECT_TRUE(again->holds(text[2]));
  ASSERT_OK_AND_ASSIGN(const TeacherTopK second, again->get(text.narrow(0, 1, 2), nullptr));
  EXPECT_TRUE(at::equal(second.ids, first.ids.narrow(0, kContext, 2 * kContext)));
  EXPECT_TRUE(at::equal(second.log_probs, first.log_probs.narrow(0, kContext, 2 * kContext)));
}

TEST(TeacherCache, ARecordCutShortIsMadeAgain) {
  const testing::TempDir dir;
  const runtime::ToySource source;
  ASSERT_OK_AND_ASSIGN(const auto teacher, Decoder::create(source));
  const TeacherCacheSpec spec{"sha256:a", kContext, kKept};
  {
    ASSERT_OK_AND_ASSIGN(const auto cache, TeacherCache::open(dir / "cache", spec));
    ASSERT_OK(cache->get(windows(2), teacher.get()));
  }
  std::filesystem::resize_file(dir / "cache", std::filesystem::file_size(dir / "cache") - 5);
  ASSERT_OK_AND_ASSIGN(const auto cache, TeacherCache::open(dir / "cache", spec));
  EXPECT_TRUE(cache->holds(windows(2)[0]));
  EXPECT_FALSE(cache->holds(windows(2)[1]));
  ASSERT_OK(cache->get(windows(2), teacher.get()));
  ASSERT_OK_AND_ASSIGN(const auto whole, TeacherCache::open(dir / "cache", spec));
  EXPECT_TRUE(whole->holds(windows(2)[1]));
}

TEST(TeacherCache, AnotherTeachersFileIsRefusedAndKept) {
  const testing::TempDir dir;
  ASSERT_OK(TeacherCache::open(dir / "cache", {"sha256:a", kContext, kKept}));
  testing::write_file(dir / "notes", "not a cache");
  for (const TeacherCacheSpec& spec :
       {TeacherCacheSpec{"sha256:b", kContext, kKept}, {"sha256:a", 16, kKept}, {"sha256:a", kContext, 5}}) {
    const auto cache = TeacherCache::open(dir / "cache", spec);
    ASSERT_FALSE(cache.ok());
    EXPECT_EQ(cache.error().code, ErrorCode::kRefused);
  }
  EXPECT_FALSE(TeacherCache::open(dir / "notes", {"sha256:a", kContext, kKept}).ok());
  EXPECT_EQ(testing::read_file(dir / "notes"), "not a cache");
}

}  // namespace
}  // namespace narrow::train
