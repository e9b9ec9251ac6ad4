#include "cli/run_narrow.h"
#include "pipeline/tiny_gguf.h"

namespace narrow {
namespace {

using testing::expect_failure;
using testing::narrow_cli;
using testing::TempDir;

TEST(Options, HelpHasExamplesForEveryCommand) {
  for (const char* command : {"quantize", "eval", "run", "inspect", "convert", "list"}) {
    const auto r = narrow_cli({command, "--help"});
    EXPECT_EQ(r.exit_code, 0) << command;
    EXPECT_NE(r.out.find(std::string("  narrow ") + command), std::string::npos) << command << ": " << r.out;
    EXPECT_NE(r.out.find("Example"), std::string::npos) << command;
  }
  const auto top = narrow_cli({"--help"});
  EXPECT_EQ(top.exit_code, 0);
  EXPECT_NE(top.out.find("Exit codes"), std::string::npos);
}

TEST(Options, VersionSaysWhichKernels) {
  const auto r = narrow_cli({"--version"});
  EXPECT_EQ(r.exit_code, 0);
  EXPECT_TRUE(r.out.starts_with("narrow ")) << r.out;
  EXPECT_NE(r.out.find("NARROW_ISA"), std::string::npos) << r.out;
}

TEST(Options, WrongUsageIsRefused) {
  struct Case {
    std::vector<std::string> args;
    std::vector<std::string> words;
  };
  const std::vector<Case> cases = {
      {{}, {"--help"}},
      {{"frobnicate"}, {"frobnicate"}},
      {{"quantize"}, {"source"}},
      {{"quantize", "a.gguf", "-o", "b.gguf"}, {"--type"}},
      {{"quantize", "a.gguf", "-o", "b.gguf", "-t", "q8_0", "--frob"}, {"--frob", "narrow quantize --help"}},
      {{"--frob", "list"}, {"--frob"}},
      {{"quantize", "a.gguf", "extra", "-o", "b.gguf", "-t", "q8_0"}, {"extra"}},
      {{"list", "mixes", "extra"}, {"extra"}},
      {{"list", "colours"}, {"colours"}},
      {{"list", "--json", "--markdown"}, {"--markdown"}},
      {{"--threads", "-2", "list"}, {"--threads"}},
      {{"--threads", "many", "list"}, {"--threads"}},
      {{"inspect", "x.gguf", "--bins", "0", "--tensor", "t"}, {"--bins"}},
      {{"quantize", "a.gguf", "-t", "q8_0"}, {"-o FILE.gguf"}},
      {{"quantize", "a.gguf", "-o", "b.gguf", "-t", "q8_0", "--tensor", "x"}, {"--tensor 'x'"}},
      {{"quantize", "a.gguf", "-o", "b.gguf", "-t", "q8_0", "--split-max-size", "2 parsecs"},
       {"--split-max-size"}},
      {{"quantize", "a.gguf", "-o", "b.gguf", "-t", "q5_z"}, {"'q5_z'", "q4_k_m"}},
      {{"quantize", "a.gguf", "-o", "b.gguf", "-t", "q8_0", "--bpw", "4.25"},
       {"exactly one of --type", "--bpw"}},
      {{"quantize", "a.gguf", "-o", "b.gguf", "--size", "90.5MB", "--fit"},
       {"exactly one of --type", "--fit"}},
      {{"quantize", "a.gguf", "-o", "b.gguf", "--fit", "lots"}, {"--fit 'lots'"}},
      {{"quantize", "a.gguf", "-o", "b.gguf", "--kl", "-1"}, {"--kl"}},
      {{"quantize", "a.gguf", "-o", "b.gguf", "--size", "90.5 parsecs"}, {"--size '90.5 parsecs'"}},
      {{"quantize", "a.gguf", "-o", "b.gguf", "-t", "q4_0", "--damping", "-0.1"}, {"--damping"}},
      {{"convert", "a.gguf", "-o", "b.gguf", "-t", "q8_0"}, {"f32, f16 or bf16", "narrow quantize"}},
  };
  for (const Case& c : cases) expect_failure(narrow_cli(c.args), 2, c.words);
}

TEST(Options, AreTakenAnywhereAndTypesInAnyCase) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  const std::string src = dir / "src.gguf", a = dir / "a.gguf", b = dir / "b.gguf", c = dir / "c.gguf";
  EXPECT_EQ(narrow_cli({"quantize", src, "-o", a, "--type", "Q4_K_M", "--threads", "1", "--quiet"}).exit_code,
            0);
  EXPECT_EQ(narrow_cli({"--threads", "2", "quantize", "--type", "q4_k_m", "--output", b, src}).exit_code, 0);
  EXPECT_EQ(narrow_cli({"-q", "quantize", "-t", "q4_K_m", src, "--pure", "-o", c}).exit_code, 0);
  EXPECT_EQ(testing::read_file(a), testing::read_file(b)) << "the same bytes for 1 and 2 threads";
  EXPECT_NE(testing::read_file(a), testing::read_file(c));
}

TEST(Options, CalibrationFilesAreSortedByWhatTheyHold) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  ASSERT_OK(testing::write_tiny_gguf(dir / "statistics.txt"));
  testing::write_file(dir / "old.dat", std::string("\x02\0\0\0", 4) + "blk");
  expect_failure(narrow_cli({"quantize", "-t", "q4_0", "-o", dir / "out.gguf", "--calib",
                             dir / "statistics.txt", dir / "old.dat", dir / "src.gguf"}),
                 2, {"both hold statistics", "statistics.txt", "old.dat"});
}

TEST(Options, RepeatedRulesDoNotSwallowTheSource) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  const auto r = narrow_cli({"quantize", "-t", "q4_0", "--tensor", "ffn_up=q8_0", "--tensor", "attn_q=Q6_K",
                             dir / "src.gguf", "--dry-run"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.err.find("rule 'ffn_up=q8_0': matches 2 tensors, applied to 2"), std::string::npos) << r.err;
  EXPECT_NE(r.out.find("rule 'attn_q'"), std::string::npos) << r.out;
}

}  // namespace
}  // namespace narrow
