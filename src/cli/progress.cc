#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "cli/command.h"
#include "cli/interrupt.h"

namespace narrow::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

std::string duration_text(double s) {
  const auto whole = static_cast<std::uint64_t>(s + 0.5);
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

std::string rate_text(double per_s, const std::string& unit) {
  return fmt::format("{:.{}f} {}/s", per_s, per_s < 10 ? 1 : 0, unit);
}

class QuietProgress : public ProgressSink {
 public:
  void begin(std::string_view, std::uint64_t, std::string_view) override {}
  void update(std::uint64_t, std::string_view) override {}
  void end() override {}
  void note(std::string_view) override {}
  bool cancelled() const override { return interrupted(); }
};

class CountingProgress : public ProgressSink {
 public:
  void begin(std::string_view task, std::uint64_t total, std::string_view unit) override {
    task_ = task;
    unit_ = unit;
    total_ = total;
    done_ = 0;
    start_ = Clock::now();
    last_drawn_ = {};
    started();
  }
  void update(std::uint64_t done, std::string_view detail) override {
    done_ = total_ > 0 ? std::min(done, total_) : done;
    detail_ = detail;
    if (seconds_since(last_drawn_) < interval_s()) return;
    draw();
    last_drawn_ = Clock::now();
  }
  bool cancelled() const override { return interrupted(); }

 protected:
  virtual double interval_s() const = 0;
  virtual void started() = 0;
  virtual void draw() = 0;

  // "45 %, 120/269 MB, 84 MB/s, 2 s left"
  std::string numbers() const {
    const double elapsed = seconds_since(start_);
    const double rate = elapsed > 0 ? static_cast<double>(done_) / elapsed : 0;
    if (total_ == 0) return fmt::format("{} {}, {}", done_, unit_, rate_text(rate, unit_));
    std::string text =
        fmt::format("{} %, {}/{} {}, {}", 100 * done_ / total_, done_, total_, unit_, rate_text(rate, unit_));
    if (done_ > 0)
      text += fmt::format(", {} left", duration_text(static_cast<double>(total_ - done_) / rate));
    return text;
  }

  std::string task_, unit_, detail_;
  std::uint64_t total_ = 0, done_ = 0;
  Clock::time_point start_, last_drawn_;
};

// One line of a terminal, drawn over and over.
class BarProgress final : public CountingProgress {
 public:
  ~BarProgress() override { clear(); }
  void end() override { clear(); }
  void note(std::string_view line) override {
    clear();
    fmt::print(stderr, "{}\n", line);
  }

 private:
  double interval_s() const override { return 0.1; }
  void started() override {}
  void draw() override {
    constexpr std::size_t kBar = 24;
    winsize size = {};
    const std::size_t width =
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
    std::string line = task_ + " ";
    if (total_ > 0) {
      const auto full = static_cast<std::size_t>(kBar * done_ / total_);
      line += fmt::format("[{}{}] ", std::string(full, '='), std::string(kBar - full, ' '));
    }
    line += fmt::format("{}  {}", numbers(), detail_);
    line.resize(std::min(line.size(), width - 1));
    fmt::print(stderr, "\r\033[K{}", line);
    std::fflush(stderr);
    drawn_ = true;
  }
  void clear() {
    if (drawn_) fmt::print(stderr, "\r\033[K");
    std::fflush(stderr);
    drawn_ = false;
  }
  bool drawn_ = false;
};

// For logs: a line now and then.
class LineProgress final : public CountingProgress {
 public:
  void end() override {
    if (done_ > 0) fmt::print(stderr, "{}: done in {}\n", task_, duration_text(seconds_since(start_)));
  }
  void note(std::string_view line) override { fmt::print(stderr, "{}\n", line); }

 private:
  double interval_s() const override { return 5.0; }
  void started() override { last_drawn_ = Clock::now(); }
  void draw() override { fmt::print(stderr, "{}: {}\n", task_, numbers()); }
};

}  // namespace

std::unique_ptr<ProgressSink> make_progress(const Context& context) {
  if (context.quiet) return std::make_unique<QuietProgress>();
  if (isatty(STDERR_FILENO) != 0) return std::make_unique<BarProgress>();
  return std::make_unique<LineProgress>();
}

}  // namespace narrow::cli
