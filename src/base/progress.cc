#include "narrow/progress.h"

namespace narrow {
namespace {
class NullProgress final : public ProgressSink {
 public:
  void begin(std::string_view, std::uint64_t, std::string_view) override {}
  void update(std::uint64_t, std::string_view) override {}
  void end() override {}
  void note(std::string_view) override {}
};
}  // namespace

ProgressSink& null_progress() {
  static NullProgress sink;
  return sink;
}

}  // namespace narrow
