#include "ops/gemm.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>

#include "base/thread_team.h"
#include "kernels/dispatch.h"

namespace narrow::ops {
namespace {

constexpr std::int64_t kBf16TileFeatures = 256;

// oneDNN asks OpenMP how many threads it may use, both when it builds and when it runs a primitive.
class OneThread {
 public:
  OneThread() : saved_(omp_get_max_threads()) {
    if (saved_ != 1) omp_set_num_threads(1);
  }
  ~OneThread() {
    if (saved_ != 1) omp_set_num_threads(saved_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int saved_;
};

// NARROW_ISA binds oneDNN too. It takes effect only before oneDNN's first use, hence the once.
void bind_isa() {
  static const bool once = [] {
    const std::string_view isa = kernels::kernels().name;
    if (isa == "avx2") dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
    if (isa == "generic") dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
    return true;
  }();
  static_cast<void>(once);
}

// One bf16 product of a fixed shape. Executing it is thread-safe; it owns no buffers.
struct Bf16Product {
  dnnl::memory::desc a, b, c;
  dnnl::matmul primitive;
};

const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Throws dnnl::error.
const Bf16Product& bf16_product(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t ldc) {
  static std::mutex mutex;
  static std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>, Bf16Product> products;
  const std::lock_guard lock(mutex);
  const auto key = std::make_tuple(m, n, k, ldc);
  const auto it = products.find(key);
  if (it != products.end()) return it->second;
  using Type = dnnl::memory::data_type;
  Bf16Product p;
  p.a = dnnl::memory::desc({m, k}, Type::bf16, dnnl::memory::dims{k, 1});
  p.b = dnnl::memory::desc({k, n}, Type::bf16, dnnl::memory::dims{1, k});
  p.c = dnnl::memory::desc({m, n}, Type::f32, dnnl::memory::dims{ldc, 1});
  const dnnl::matmul::desc operation(p.a, p.b, p.c);
  p.primitive = dnnl::matmul(dnnl::matmul::primitive_desc(operation, cpu_engine()));
  return products.emplace(key, std::move(p)).first->second;
}

// Throws dnnl::error.
void run_bf16_product(const Bf16Product& p, const bf16* a, const bf16* b, float* c) {
  // oneDNN's handles are not const; it only reads a and b.
  dnnl::memory ma(p.a, cpu_engine(), const_cast<bf16*>(a));
  dnnl::memory mb(p.b, cpu_engine(), const_cast<bf16*>(b));
  dnnl::memory mc(p.c, cpu_engine(), c);
  dnnl::stream stream(cpu_engine());
  p.primitive.execute(stream, {{DNNL_ARG_SRC, ma}, {DNNL_ARG_WEIGHTS, mb}, {DNNL_ARG_DST, mc}});
  stream.wait();
}

}  // namespace

Status gemm_f32_single(bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                       const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float* c,
                       std::int64_t ldc) {
  bind_isa();
  const OneThread guard;
  const dnnl_status_t status =
      dnnl_sgemm('N', transpose_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, 0.0f, c, ldc);
  if (status == dnnl_success) return {};
  return make_error(status == dnnl_out_of_memory ? ErrorCode::kOutOfMemory : ErrorCode::kInternal,
                    "matmul: oneDNN failed with status {} on [{}, {}] x [{}, {}]", static_cast<int>(status),
                    m, k, k, n);
}

Status gemm_bf16(std::int64_t m, std::int64_t n, std::int64_t k, const bf16* a, const bf16* b, float* c) {
  if (m < 0 || n < 0 || k < 0) {
    return make_error(ErrorCode::kInvalidArgument, "gemm_bf16: negative size in [{}, {}] x [{}, {}]^T", m, k,
                      n, k);
  }
  if (m == 0 || n == 0) return {};
  if (k == 0) {
    std::fill(c, c + m * n, 0.0f);
    return {};
  }
  bind_isa();
  std::atomic<int> failure{dnnl_success};
  const std::int64_t tiles = (n + kBf16TileFeatures - 1) / kBf16TileFeatures;
  parallel_for(tiles, [&](std::int64_t tile, int) {
    const OneThread guard;
    const std::int64_t begin = tile * kBf16TileFeatures;
    const std::int64_t count = std::min(kBf16TileFeatures, n - begin);
    try {  // the exceptions are oneDNN's; they end here
      run_bf16_product(bf16_product(m, count, k, n), a, b + begin * k, c + begin);
    } catch (const dnnl::error& e) {
      failure = e.status;
    } catch (const std::bad_alloc&) {
      failure = dnnl_out_of_memory;
    }
  });
  if (failure == dnnl_success) return {};
  return make_error(failure == dnnl_unimplemented   ? ErrorCode::kUnsupported
                    : failure == dnnl_out_of_memory ? ErrorCode::kOutOfMemory
                                                    : ErrorCode::kInternal,
                    "gemm_bf16: oneDNN failed with status {} on [{}, {}] x [{}, {}]^T", failure.load(), m, k,
                    n, k);
}

}  // namespace narrow::ops
