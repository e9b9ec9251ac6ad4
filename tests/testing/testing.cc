#include "testing/testing.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace narrow::testing {
namespace fs = std::filesystem;

fs::path shared_data() {
  if (const char* env = std::getenv("NARROW_SHARED")) return fs::path(env) / "data";
  return fs::path(__FILE__).parent_path().parent_path().parent_path().parent_path() / "shared" / "data";
}

bool has_shared_data() { return fs::exists(shared_data() / "README.md"); }

fs::path cache_dir() {
  if (const char* env = std::getenv("NARROW_CACHE")) return env;
  const char* home = std::getenv("HOME");
  return fs::path(home ? home : "/tmp") / ".cache" / "narrow";
}

std::string oracle_python() {
  if (const char* env = std::getenv("NARROW_PYTHON")) return env;
  const fs::path p = cache_dir() / "venv" / "bin" / "python";
  return fs::exists(p) ? p.string() : std::string();
}

std::string run_python(const std::string& code, const std::vector<std::string>& args) {
  std::vector<std::string> argv = {oracle_python(), "-c", code};
  argv.insert(argv.end(), args.begin(), args.end());
  CommandResult r = run_command(argv);
  EXPECT_EQ(r.exit_code, 0) << r.err;
  return r.out;
}

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "narrow-test-XXXXXX").string();
  path_ = ::mkdtemp(pattern.data());
}

TempDir::~TempDir() {
  std::error_code ec;
  fs::remove_all(path_, ec);
}

std::string read_file(const fs::path& p) {
  std::ifstream in(p, std::ios::binary);
  std::ostringstream s;
  s << in.rdbuf();
  return s.str();
}

void write_file(const fs::path& p, std::string_view bytes) {
  std::ofstream out(p, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

CommandResult run_command(const std::vector<std::string>& argv, const std::string& input) {
  int in[2], out[2], err[2];
  CommandResult result;
  if (::pipe(in) != 0 || ::pipe(out) != 0 || ::pipe(err) != 0) return result;
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::dup2(err[1], 2);
    for (int fd : {in[0], in[1], out[0], out[1], err[0], err[1]}) ::close(fd);
    std::vector<char*> args;
    for (const std::string& a : argv) args.push_back(const_cast<char*>(a.c_str()));
    args.push_back(nullptr);
    ::execvp(args[0], args.data());
    ::_exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  ::close(err[1]);
  if (!input.empty() && ::write(in[1], input.data(), input.size()) < 0) result.err += "(input not written)";
  ::close(in[1]);
  pollfd fds[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  int open = 2;
  char buffer[65536];
  while (open > 0 && ::poll(fds, 2, -1) >= 0) {
    for (pollfd& f : fds) {
      if (f.fd < 0 || f.revents == 0) continue;
      const ssize_t n = ::read(f.fd, buffer, sizeof buffer);
      if (n <= 0) {
        ::close(f.fd);
        f.fd = -1;
        --open;
      } else {
        (&f == &fds[0] ? result.out : result.err).append(buffer, static_cast<std::size_t>(n));
      }
    }
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace narrow::testing
