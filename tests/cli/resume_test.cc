// Runs that are killed, interrupted or refused, and go on.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "base/rng.h"
#include "cli/run_narrow.h"
#include "io/gguf/reader.h"
#include "pipeline/tiny_gguf.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using testing::expect_failure;
using testing::narrow_cli;
using testing::TempDir;

// Starts narrow and does not wait for it.
pid_t start_narrow(std::vector<std::string> args) {
  args.insert(args.begin(), NARROW_BINARY);
  std::vector<char*> argv;
  for (const std::string& a : args) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  const int null = ::open("/dev/null", O_RDWR);
  for (int fd : {0, 1, 2}) ::dup2(null, fd);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

// Waits until the journal has `lines` lines or the process has ended.
void wait_for_lines(const fs::path& journal, std::int64_t lines, pid_t pid) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (std::chrono::steady_clock::now() < limit) {
    const std::string text = testing::read_file(journal);
    if (std::count(text.begin(), text.end(), '\n') >= lines) return;
    siginfo_t info = {};
    if (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid == pid) {
      return;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

int stop(pid_t pid, int signal) {
  ::kill(pid, signal);
  int status = 0;
  ::waitpid(pid, &status, 0);
  return status;
}

// Enough work that a run can be stopped in the middle of it.
testing::TinyGguf toy() {
  testing::TinyGguf toy;
  toy.n_embd = 256;
  toy.n_ff = 1024;
  toy.n_layer = 4;
  return toy;
}

TEST(Resume, TenKillsAtRandomMomentsChangeNoByte) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf", toy()));
  const std::int64_t n_tensors = static_cast<std::int64_t>(testing::tiny_tensors(toy()).size());
  const fs::path out = dir / "out.gguf", journal = dir / "out.gguf.partial.json";
  const std::vector<std::string> command = {"quantize", dir / "src.gguf", "-o", out, "-t", "q3_k_m", "-q"};
  std::vector<std::string> resume = command;
  resume.push_back("--resume");
  ASSERT_EQ(narrow_cli(command).exit_code, 0);
  const std::string expected = testing::read_file(out);
  fs::remove(out);

  Rng rng(10);
  int killed = 0, with_work = 0;
  for (int i = 0; i < 10; ++i) {
    // Twice in a row now and then: the resumed run is killed too.
    for (int kills = 0; kills < 1 + i % 2; ++kills) {
      const auto lines =
          static_cast<std::int64_t>(rng.next_u64() % static_cast<std::uint64_t>(n_tensors + 2));
      const pid_t pid = start_narrow(resume);
      wait_for_lines(journal, lines, pid);
      std::this_thread::sleep_for(std::chrono::microseconds(rng.next_u64() % 3000));
      killed += WIFSIGNALED(stop(pid, SIGKILL)) ? 1 : 0;
      with_work += fs::exists(journal) ? 1 : 0;
    }
    const auto r = narrow_cli(resume);
    ASSERT_EQ(r.exit_code, 0) << r.err;
    EXPECT_EQ(testing::read_file(out), expected) << "kill " << i;
    EXPECT_EQ(testing::names_in(dir.path()), (std::vector<std::string>{"out.gguf", "src.gguf"}));
    fs::remove(out);
  }
  EXPECT_GE(killed, 5);
  EXPECT_GE(with_work, 5);
}

TEST(Resume, InterruptKeepsThePartAndSaysSo) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf", toy()));
  const fs::path out = dir / "out.gguf", journal = dir / "out.gguf.partial.json";
  const std::vector<std::string> command = {"quantize", dir / "src.gguf", "-o", out, "-t", "q4_k_m", "-q"};
  ASSERT_EQ(narrow_cli(command).exit_code, 0);
  const std::string expected = testing::read_file(out);
  fs::remove(out);
  const pid_t pid = start_narrow(command);
  wait_for_lines(journal, 5, pid);
  const int status = stop(pid, SIGINT);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 0) GTEST_SKIP() << "the run was over before the interrupt came";
  EXPECT_EQ(WEXITSTATUS(status), 130);
  ASSERT_TRUE(fs::exists(journal));

  expect_failure(narrow_cli(command), 4, {"out.gguf.partial", "tensors", "--resume", "remove"});
  std::vector<std::string> other = command;
  other[5] = "q4_0";
  other.push_back("--resume");
  expect_failure(narrow_cli(other), 4, {"other options", "'type' was \"q4_k_m\" and is \"q4_0\""});
  std::vector<std::string> resume = command;
  resume.pop_back();
  resume.push_back("--resume");
  const auto r = narrow_cli(resume);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.err.find("tensors are finished: going on"), std::string::npos) << r.err;
  EXPECT_EQ(testing::read_file(out), expected);
}

TEST(Resume, AChangedSourceIsRefused) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf", toy()));
  const fs::path journal = dir / "out.gguf.partial.json";
  const std::vector<std::string> command = {"quantize", dir / "src.gguf", "-o", dir / "out.gguf",
                                            "-t",       "q5_k_m",         "-q", "--resume"};
  const pid_t pid = start_narrow(command);
  wait_for_lines(journal, 4, pid);
  stop(pid, SIGKILL);
  if (!fs::exists(journal)) GTEST_SKIP() << "the run was over before it could be killed";
  testing::TinyGguf changed = toy();
  changed.edit = [](const std::string&, std::vector<float>& v) { v[0] += 1.0f; };
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf", changed));
  expect_failure(narrow_cli(command), 4, {"another source"});
}

// One family of tensors again in an existing file: that file's others stay as they are to the bit.
TEST(Only, RedoesTheNamedTensorsAlone) {
  const TempDir dir;
  const testing::TinyGguf model;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf", model));
  const std::string src = dir / "src.gguf", out = dir / "out.gguf", whole = dir / "whole.gguf";
  ASSERT_EQ(narrow_cli({"quantize", src, "-o", out, "-t", "q4_0", "-q"}).exit_code, 0);
  ASSERT_EQ(narrow_cli({"quantize", src, "-o", whole, "-t", "q5_k", "--pure", "-q"}).exit_code, 0);
  const std::string before = testing::read_file(out);
  testing::write_file(dir / "before.gguf", before);
  const std::vector<std::string> command = {"quantize", src,      "-o", out,      "-t",
                                            "q5_k",     "--pure", "-q", "--only", "ffn_down"};
  const auto r = narrow_cli(command);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  ASSERT_OK_AND_ASSIGN(const auto now, io::gguf::Reader::open(out));
  ASSERT_OK_AND_ASSIGN(const auto old, io::gguf::Reader::open(dir / "before.gguf"));
  ASSERT_OK_AND_ASSIGN(const auto q5, io::gguf::Reader::open(whole));
  int redone = 0;
  for (const auto& t : now.tensors()) {
    const bool named = t.info.name.find("ffn_down") != std::string::npos;
    redone += named ? 1 : 0;
    const auto& like = named ? q5 : old;
    const auto* other = like.find(t.info.name);
    ASSERT_NE(other, nullptr) << t.info.name;
    ASSERT_EQ(t.info.format, other->info.format) << t.info.name;
    EXPECT_EQ(std::memcmp(now.view(t).data, like.view(*other).data, t.info.bytes()), 0) << t.info.name;
  }
  EXPECT_EQ(redone, 2);
  const std::string recipe = now.metadata().get_string("narrow.recipe").value_or("");
  for (const char* part : {R"("only":"ffn_down")", R"("base":{)", R"("type":"q4_0")", R"("sha256":")"}) {
    EXPECT_NE(recipe.find(part), std::string::npos) << part << " is not in " << recipe;
  }
  EXPECT_EQ(now.metadata().get_int("general.file_type"), old.metadata().get_int("general.file_type"));
  EXPECT_EQ(testing::names_in(dir.path()),
            (std::vector<std::string>{"before.gguf", "out.gguf", "src.gguf", "whole.gguf"}));

  // The same step again gives the same tensors, and a killed one goes on to the same bytes.
  const std::string expected = testing::read_file(out);
  for (int lines = 1; lines < 20; lines += 6) {
    testing::write_file(out, before);
    std::vector<std::string> resume = command;
    resume.push_back("--resume");
    const pid_t pid = start_narrow(resume);
    wait_for_lines(dir / "out.gguf.partial.json", lines, pid);
    stop(pid, SIGKILL);
    ASSERT_EQ(narrow_cli(resume).exit_code, 0);
    if (testing::read_file(out) != expected) {
      // It was over before the kill: then it has been done twice, upon itself.
      EXPECT_NE(testing::read_file(out).find(R"("base":{"command":"quantize","type":"q5_k)"),
                std::string::npos);
    }
  }
}

TEST(Only, RefusesWhatItCannotDo) {
  const TempDir dir;
  testing::TinyGguf other;
  other.n_ff = 768;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  ASSERT_OK(testing::write_tiny_gguf(dir / "wider.gguf", other));
  other = {};
  other.tied = true;
  ASSERT_OK(testing::write_tiny_gguf(dir / "tied.gguf", other));
  const std::string src = dir / "src.gguf", out = dir / "out.gguf";
  ASSERT_EQ(narrow_cli({"quantize", src, "-o", out, "-t", "q4_0", "-q"}).exit_code, 0);
  const std::string before = testing::read_file(out);
  struct Case {
    std::vector<std::string> args;
    int code;
    std::vector<std::string> words;
  };
  const std::vector<Case> cases = {
      {{"quantize", src, "-o", out, "-t", "q5_k", "--only", "no_such"},
       2,
       {"'no_such'", "matches no tensor"}},
      {{"quantize", src, "-o", out, "-t", "q5_k", "--only", "ffn("}, 2, {"ffn("}},
      {{"quantize", src, "-o", dir / "none.gguf", "-t", "q5_k", "--only", "ffn"},
       3,
       {"none.gguf", "existing"}},
      {{"quantize", dir / "wider.gguf", "-o", out, "-t", "q5_k", "--only", "ffn"},
       2,
       {"another model", "ffn"}},
      {{"quantize", dir / "tied.gguf", "-o", out, "-t", "q5_k", "--only", "ffn"},
       2,
       {"another model", "output.weight"}},
      {{"quantize", src, "-o", src, "-t", "q5_k", "--only", "ffn"}, 2, {"same file"}},
      {{"quantize", src, "-o", out, "-t", "q5_k", "--only", "ffn", "--split-max-size", "1M"}, 2, {"split"}},
  };
  for (const Case& c : cases) {
    expect_failure(narrow_cli(c.args), c.code, c.words);
    EXPECT_EQ(testing::read_file(out), before);
  }
}

}  // namespace
}  // namespace narrow
