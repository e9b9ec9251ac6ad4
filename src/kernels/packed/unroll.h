// Loops that must be unrolled so that their arrays live in registers, whatever the compiler thinks of it.
#pragma once

namespace narrow::kernels::packed {

template <int kValue>
struct Index {
  static constexpr int value = kValue;
};

// f(Index<0>{}), .., f(Index<kCount - 1>{}); f is a lambda marked NARROW_INLINE_LAMBDA.
#define NARROW_INLINE_LAMBDA __attribute__((always_inline))
template <int kCount, int kFirst = 0, class F>
[[gnu::always_inline]] static inline void unroll(F&& f) {
  if constexpr (kFirst < kCount) {
    f(Index<kFirst>{});
    unroll<kCount, kFirst + 1>(f);
  }
}

}  // namespace narrow::kernels::packed
