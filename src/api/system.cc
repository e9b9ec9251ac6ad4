#include "narrow/system.h"

#include <string>

#include "api/guard.h"
#include "base/atomic_file.h"
#include "base/cpu_features.h"
#include "base/thread_team.h"
#include "kernels/dispatch.h"

namespace narrow {

void set_threads(int n) { set_thread_count(n); }
int threads() { return thread_count(); }
// set_thread_pinning is base/thread_team's own.
std::string isa_description() { return kernels::isa_description(); }
std::uint64_t peak_memory_bytes() { return peak_resident_bytes(); }

Status write_text_file(const std::filesystem::path& path, std::string_view text) {
  return api::guarded([&]() -> Status {
    NARROW_ASSIGN(AtomicFile file, AtomicFile::create(path));
    NARROW_TRY(file.write(text));
    return file.commit();
  });
}

}  // namespace narrow
