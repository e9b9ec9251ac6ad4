#include "train/distributed.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <future>

#include "testing/testing.h"
#include "train/checkpoint.h"
#include "train/small_llama.h"

namespace narrow::train {
namespace {

namespace fs = std::filesystem;

// The same step of the same model, by one process of a group or by one alone.
struct Step {
  std::unique_ptr<Decoder> student;
  StepMetrics metrics;
  std::vector<NamedTensor> gradients;
};

Result<Step> compute(const Rendezvous& where, Group* group) {
  Step out;
  NARROW_ASSIGN(out.student, Decoder::create_random(testing::small_llama(), 3));
  for (auto& [name, w] : out.student->weights()) w.set_requires_grad(true);
  DatasetOptions cut;
  cut.n_ctx = 16;
  cut.n_vocab = 50;
  cut.validation_windows = 2;
  Document text = testing::small_text(1600);
  // Unequal shares: what a process divides by is the count of all.
  text.counts.assign(text.ids.size(), 0);
  for (std::size_t i = 0; i < text.ids.size(); ++i) text.counts[i] = (i / 40) % 3 != 0;
  const Document documents[] = {text};
  NARROW_ASSIGN(const Dataset data, Dataset::create(documents, cut));
  TrainerOptions o;
  o.batch = {8, where.rank, where.world};
  o.loss.kl_weight = 0;
  o.loss.ce_weight = 1;
  NARROW_ASSIGN(const auto trainer, Trainer::create(*out.student, nullptr, data, o, group));
  NARROW_ASSIGN(out.metrics, trainer->gradients(2));
  for (const Parameter& p : trainer->optimizer().parameters())
    out.gradients.push_back({p.name, p.tensor.grad()});
  return out;
}

// What the processes that the tests below start run; they are this program, with the variables that torchrun
// sets.
TEST(DistributedProcess, Works) {
  const char* folder = std::getenv("NARROW_TEST_GROUP");
  if (folder == nullptr) GTEST_SKIP() << "started by Distributed.*";
  at::set_num_threads(1);
  ASSERT_OK_AND_ASSIGN(const Rendezvous where, Rendezvous::from_environment());
  ASSERT_OK_AND_ASSIGN(const auto group, Distributed::connect(where));
  ASSERT_NE(group, nullptr);
  const auto rank = static_cast<double>(where.rank);

  // Sums, across dtypes, strides and buckets.
  const at::Tensor small = at::full({3}, rank + 1, at::kFloat),
                   whole = at::full({2, 2}, where.rank + 5, at::kLong);
  const at::Tensor turned = at::arange(6, at::kFloat).reshape({2, 3}).t() * (rank + 1);
  const at::Tensor large = at::full({9'000'000}, 0.25 * (rank + 1), at::kFloat);
  const at::Tensor list[] = {small, whole, turned, large};
  ASSERT_OK(group->sum(list));
  EXPECT_TRUE(at::equal(small, at::full({3}, 3.0f)));
  EXPECT_TRUE(at::equal(whole, at::full({2, 2}, 11, at::kLong)));
  EXPECT_TRUE(at::equal(turned, at::arange(6, at::kFloat).reshape({2, 3}).t() * 3));
  EXPECT_TRUE(at::equal(large, at::full({9'000'000}, 0.75f)));

  const at::Tensor start = at::full({5}, 1 + rank, at::kFloat), more = at::full({2, 3}, rank, at::kFloat);
  const at::Tensor starts[] = {start, more};
  ASSERT_OK(group->broadcast(starts));
  EXPECT_TRUE(at::equal(start, at::ones({5})));
  EXPECT_TRUE(at::equal(more, at::zeros({2, 3})));

  ASSERT_OK_AND_ASSIGN(const Step step, compute(where, group.get()));
  ASSERT_OK(write_checkpoint(fs::path(folder) / std::to_string(where.rank), {},
                             {{"ce", step.metrics.ce}, {"norm", step.metrics.gradient_norm}},
                             step.gradients));
}

int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ::bind(fd, reinterpret_cast<sockaddr*>(&address), size);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(fd);
  return ntohs(address.sin_port);
}

TEST(Distributed, TwoProcessesHaveTheGradientsOfOne) {
  const Rendezvous alone;
  if (!gloo_collective(alone).ok()) GTEST_SKIP() << gloo_collective(alone).error().message;
  const testing::TempDir dir;
  const std::string self = fs::read_symlink("/proc/self/exe").string(), port = std::to_string(free_port());
  const auto start = [&](int rank) {
    return testing::run_command({"/usr/bin/env", "WORLD_SIZE=2", "RANK=" + std::to_string(rank),
                                 "MASTER_ADDR=127.0.0.1", "MASTER_PORT=" + port,
                                 "NARROW_TEST_GROUP=" + dir.path().string(), "timeout", "300", self,
                                 "--gtest_filter=DistributedProcess.Works"});
  };
  auto second = std::async(std::launch::async, [&] { return start(1); });
  const testing::CommandResult first = start(0);
  const testing::CommandResult other = second.get();
  ASSERT_EQ(first.exit_code, 0) << first.out << first.err;
  ASSERT_EQ(other.exit_code, 0) << other.out << other.err;

  ASSERT_OK_AND_ASSIGN(const Step whole, compute(alone, nullptr));
  ASSERT_OK_AND_ASSIGN(const Checkpoint zero, read_checkpoint(dir / "0", {}));
  ASSERT_OK_AND_ASSIGN(const Checkpoint one, read_checkpoint(dir / "1", {}));
  EXPECT_EQ(zero.state, one.state);
  EXPECT_NEAR(zero.state["ce"].get<double>(), whole.metrics.ce, 1e-6);
  EXPECT_NEAR(zero.state["norm"].get<double>(), whole.metrics.gradient_norm, 1e-6);
  EXPECT_GT(whole.metrics.gradient_norm, 0.1);
  for (const NamedTensor& g : whole.gradients) {
    ASSERT_TRUE(zero.tensors.contains(g.name)) << g.name;
    EXPECT_TRUE(at::equal(zero.tensors.at(g.name), one.tensors.at(g.name))) << g.name;
    const double size = g.tensor.abs().max().item<double>();
    EXPECT_LE((zero.tensors.at(g.name) - g.tensor).abs().max().item<double>(), 2e-6 * size + 1e-9) << g.name;
  }
}

using Variables = std::vector<std::pair<const char*, const char*>>;

// Sets variables for a test's duration.
class Environment {
 public:
  explicit Environment(const Variables& values) {
    for (const auto& [name, value] : values) {
      names_.push_back(name);
      ::setenv(name, value, 1);
    }
  }
  ~Environment() {
    for (const char* name : names_) ::unsetenv(name);
  }

 private:
  std::vector<const char*> names_;
};

TEST(Distributed, EnvironmentIsTorchruns) {
  const auto error = [] {
    const auto r = Rendezvous::from_environment();
    return r.ok() ? std::string() : r.error().message;
  };
  if (std::getenv("WORLD_SIZE") != nullptr) GTEST_SKIP() << "WORLD_SIZE is set";
  {
    ASSERT_OK_AND_ASSIGN(const Rendezvous alone, Rendezvous::from_environment());
    EXPECT_EQ(alone.world, 1);
    ASSERT_OK_AND_ASSIGN(const auto group, Distributed::connect(alone));
    EXPECT_EQ(group, nullptr);
  }
  {
    const Environment e(Variables{{"WORLD_SIZE", "4"},
                                  {"RANK", "3"},
                                  {"LOCAL_RANK", "1"},
                                  {"MASTER_ADDR", "host"},
                                  {"MASTER_PORT", "1234"},
                                  {"TORCHELASTIC_USE_AGENT_STORE", "True"}});
    ASSERT_OK_AND_ASSIGN(const Rendezvous r, Rendezvous::from_environment());
    EXPECT_EQ(r.world, 4);
    EXPECT_EQ(r.rank, 3);
    EXPECT_EQ(r.local_rank, 1);
    EXPECT_EQ(r.host, "host");
    EXPECT_EQ(r.port, 1235);  // the agent has 1234
  }
  {
    const Environment e(Variables{{"WORLD_SIZE", "2"}});
    EXPECT_NE(error().find("RANK is not"), std::string::npos) << error();
  }
  {
    const Environment e(Variables{{"WORLD_SIZE", "2"}, {"RANK", "2"}});
    EXPECT_NE(error().find("RANK is 2 of WORLD_SIZE 2"), std::string::npos) << error();
  }
  {
    const Environment e(Variables{{"WORLD_SIZE", "two"}});
    EXPECT_NE(error().find("WORLD_SIZE is 'two'"), std::string::npos) << error();
  }
  {
    const Environment e(Variables{{"WORLD_SIZE", "2"}, {"RANK", "1"}, {"MASTER_PORT", "70000"}});
    EXPECT_NE(error().find("MASTER_PORT is '70000'"), std::string::npos) << error();
  }
}

TEST(Distributed, SaysWhoIsMissing) {
  Rendezvous where;
  if (!gloo_collective(where).ok()) GTEST_SKIP();
  where.world = 2;
  where.rank = 1;
  where.port = static_cast<std::uint16_t>(free_port());  // where nobody listens
  where.timeout_s = 1;
  const auto r = Distributed::connect(where);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().code, ErrorCode::kIo);
  EXPECT_NE(r.error().message.find("process 1 of 2"), std::string::npos) << r.error().message;
  EXPECT_EQ(r.error().message.find('\n'), std::string::npos);
}

}  // namespace
}  // namespace narrow::train
