#include "train/nodes/grid_kernel.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "train/torch.h"

namespace narrow::train {
namespace {

template <class T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(32)));
};
template <class T>
using Vector = typename VectorOf<T>::Type;
template <class T>
constexpr int kLanes = static_cast<int>(32 / sizeof(T));

// Up to a whole vector; what is missing is 0.
template <class T>
Vector<T> load(const T* p, std::int64_t n) {
  Vector<T> v{};
  if (n >= kLanes<T>) {
    std::memcpy(&v, p, sizeof(v));
  } else {
    std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(T));
  }
  return v;
}
template <class T>
void store(T* p, Vector<T> v, std::int64_t n) {
  if (n >= kLanes<T>) {
    std::memcpy(p, &v, sizeof(v));
  } else {
    std::memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(T));
  }
}
template <class T>
Vector<T> splat(T f) {
  return Vector<T>{} + f;
}
template <class T>
T sum(Vector<T> v) {
  T s = 0;
  for (int i = 0; i < kLanes<T>; ++i) s += v[i];
  return s;
}

// The levels of a codec in the form that the loops use.
template <class T>
struct Levels {
  explicit Levels(const formats::GridCodec& codec)
      : count(static_cast<int>(codec.levels.size())),
        low(static_cast<T>(codec.levels.front())),
        high(static_cast<T>(codec.levels.back())) {
    const auto at = [&](int i) { return static_cast<T>(codec.levels[static_cast<std::size_t>(i)]); };
    reach_low = low - (at(1) - low) / 2;
    reach_high = high + (high - at(count - 2)) / 2;
    if (codec.uniform) return;
    for (int i = 0; i + 1 < count; ++i) {
      step[i] = at(i + 1) - at(i);
      middle[i] = at(i) + step[i] / 2;
    }
  }
  int count;
  T low, high;
  T reach_low, reach_high;           // the ends, half a step on
  T step[16] = {}, middle[16] = {};  // between neighbours; not for uniform levels
};

// The level that is nearest to t, which is cut to the ends first.
template <class T, bool kUniform>
Vector<T> nearest(const Levels<T>& levels, Vector<T> t) {
  if constexpr (kUniform) {
    // 1.5 * 2^23 (2^52) leaves no room for a fraction.
    constexpr T kMagic = static_cast<T>(sizeof(T) == 4 ? 12582912.0 : 6755399441055744.0);
    const Vector<T> low = splat(levels.low), high = splat(levels.high), magic = splat(kMagic);
    t = t > low ? t : low;
    t = t < high ? t : high;
    return (t + magic) - magic;
  } else {
    Vector<T> level = splat(levels.low);
    for (int i = 0; i + 1 < levels.count; ++i) {
      level += t > splat(levels.middle[i]) ? splat(levels.step[i]) : Vector<T>{};
    }
    return level;
  }
}

// 1 / scale, finite: 0 for 0, and the largest number for the least subnormal scales.
template <class T>
T inverse(T scale) {
  constexpr T kMost = static_cast<T>(std::numeric_limits<float>::max());
  return scale == 0 ? T{0} : std::clamp(T{1} / scale, -kMost, kMost);
}

template <class T, bool kUniform, bool kMin>
void round_row(const GridView& grid, const Levels<T>& levels, std::int64_t row, const T* w, T* value) {
  const std::int64_t group = grid.group;
  const std::int64_t groups = grid.k / group;
  for (std::int64_t g = 0; g < groups; ++g) {
    const T s = static_cast<T>(grid.scale[row * groups + g]);
    const Vector<T> scale = splat(s), inv = splat(inverse(s));
    const Vector<T> min = splat(static_cast<T>(kMin ? grid.min[row * groups + g] : 0.0f));
    for (std::int64_t j = 0; j < group; j += kLanes<T>) {
      const Vector<T> x = load(w + g * group + j, group - j);
      const Vector<T> level = nearest<T, kUniform>(levels, (kMin ? x - min : x) * inv);
      const Vector<T> v = kMin ? scale * level + min : scale * level;
      store<T>(value + g * group + j, x == x ? v : x, group - j);
    }
  }
}

template <class T, bool kUniform, bool kMin, bool kScales>
void backward_row(const GridView& grid, const Levels<T>& levels, std::int64_t row, const T* w, const T* grad,
                  T* grad_w, const GridGradients& want) {
  const std::int64_t group = grid.group;
  const std::int64_t groups = grid.k / group;
  const Vector<T> low = splat(levels.low), high = splat(levels.high);
  const Vector<T> reach_low = splat(levels.reach_low), reach_high = splat(levels.reach_high);
  const Vector<T> zero{};
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t at = row * groups + g;
    const T s = static_cast<T>(grid.scale[at]);
    // Without a scale, t is infinite of the sign of w - min: all is outside.
    const Vector<T> inv = splat(s == 0 ? std::numeric_limits<T>::infinity() : inverse(s));
    const Vector<T> min = splat(static_cast<T>(kMin ? grid.min[at] : 0.0f));
    Vector<T> sum_scale{}, sum_min{};
    for (std::int64_t j = 0; j < group; j += kLanes<T>) {
      const Vector<T> x = load(w + g * group + j, group - j), dy = load(grad + g * group + j, group - j);
      const Vector<T> t = (kMin ? x - min : x) * inv;
      const auto inside = (t >= reach_low) & (t <= reach_high);
      store<T>(grad_w + g * group + j, want.pass_clipped ? dy : (inside ? dy : zero), group - j);
      if constexpr (kScales) {
        const Vector<T> outside = t > zero ? high : (t < zero ? low : zero);
        sum_scale += dy * (inside ? nearest<T, kUniform>(levels, t) - t : outside);
        if constexpr (kMin) sum_min += inside ? zero : dy;
      }
    }
    if constexpr (kScales) {
      want.scale[at] = static_cast<float>(sum<T>(sum_scale));
      if constexpr (kMin) want.min[at] = static_cast<float>(sum<T>(sum_min));
    }
  }
}

// f(row) for all rows, in chunks that are worth a thread.
template <class F>
void for_rows(const GridView& grid, const F& f) {
  const std::int64_t grain = std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, grid.k));
  at::parallel_for(0, grid.n, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) f(r);
  });
}

// f(uniform, min) with both as compile-time constants.
template <class F>
void specialised(const formats::GridCodec& codec, const F& f) {
  using Yes = std::bool_constant<true>;
  using No = std::bool_constant<false>;
  const bool min = codec.dmin_offset >= 0;
  if (!codec.uniform) return f(No{}, No{});  // no format has both
  if (min) return f(Yes{}, Yes{});
  f(Yes{}, No{});
}

}  // namespace

template <class T>
void grid_round(const GridView& grid, const T* w, T* value) {
  const Levels<T> levels(*grid.codec);
  specialised(*grid.codec, [&](auto uniform, auto min) {
    for_rows(grid, [&](std::int64_t r) {
      round_row<T, uniform.value, min.value>(grid, levels, r, w + r * grid.k, value + r * grid.k);
    });
  });
}

template <class T>
void grid_round_backward(const GridView& grid, const T* w, const T* grad, T* grad_w,
                         const GridGradients& want) {
  const Levels<T> levels(*grid.codec);
  specialised(*grid.codec, [&](auto uniform, auto min) {
    const auto run = [&](auto scales) {
      for_rows(grid, [&](std::int64_t r) {
        const std::int64_t at = r * grid.k;
        backward_row<T, uniform.value, min.value, scales.value>(grid, levels, r, w + at, grad + at,
                                                                grad_w + at, want);
      });
    };
    if (want.scale != nullptr) {
      run(std::bool_constant<true>{});
    } else {
      run(std::bool_constant<false>{});
    }
  });
}

void grid_codes(const GridView& grid, std::int64_t row, const float* w, std::uint8_t* codes) {
  const Levels<float> levels(*grid.codec);
  const std::int64_t group = grid.group;
  const std::int64_t groups = grid.k / group;
  const std::span<const float> all = grid.codec->levels;
  specialised(*grid.codec, [&](auto uniform, auto has_min) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const float inv = inverse(grid.scale[row * groups + g]);
      const float min = has_min.value ? grid.min[row * groups + g] : 0.0f;
      for (std::int64_t j = 0; j < group; j += kLanes<float>) {
        const Vector<float> x = load(w + g * group + j, group - j);
        const Vector<float> level =
            nearest<float, uniform.value>(levels, (has_min.value ? x - splat(min) : x) * splat(inv));
        for (std::int64_t i = 0; i < std::min<std::int64_t>(kLanes<float>, group - j); ++i) {
          const float v = level[i];
          codes[g * group + j + i] = static_cast<std::uint8_t>(
              uniform.value ? static_cast<int>(v - levels.low)
                            : static_cast<int>(std::lower_bound(all.begin(), all.end(), v) - all.begin()));
        }
      }
    }
  });
}

template void grid_round(const GridView&, const float*, float*);
template void grid_round(const GridView&, const double*, double*);
template void grid_round_backward(const GridView&, const float*, const float*, float*, const GridGradients&);
template void grid_round_backward(const GridView&, const double*, const double*, double*,
                                  const GridGradients&);

}  // namespace narrow::train
