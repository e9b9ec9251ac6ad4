# Cross-builds narrow for 64-bit ARM and runs the tests of what differs there under qemu. Source after common.sh.

# run_arm64 CPU PROGRAM ARGS...: qemu's max has i8mm, its cortex-a76 is a plain ARMv8.2 with dotprod.
run_arm64() {
  local cpu="$1"; shift
  qemu-aarch64 -cpu "$cpu" "$@"
}

# arm64_tests NAME FILTER: build-arm64/bin/NAME_tests on the best processor that qemu has.
arm64_tests() {
  local log="$ROOT/build-arm64/$1-tests${GTEST_SHARD_INDEX:-}.log"
  run_arm64 max "$ROOT/build-arm64/bin/$1_tests" --gtest_brief=1 --gtest_filter="$2" >"$log" 2>&1 ||
    { tail -50 "$log" >&2; die "$1 tests failed for ARM: see $log"; }
  grep "ran\. (" "$log"
}

# expect_version CPU TEXT: what `narrow --version` says there.
expect_version() {
  local version
  version="$(run_arm64 "$1" "$ROOT/build-arm64/bin/narrow" --version)"
  printf '%s: %s\n' "$1" "$version"
  [[ "$version" == *"($2"* ]] || die "narrow --version on qemu's $1 should say '$2'"
}

# test_arm64 [all]: the kernels and what they stand on; all: the whole program too, which takes minutes more.
test_arm64() {
  local pids=() pid targets=(base_tests kernels_tests)
  [ "${1:-}" = all ] && targets+=(narrow formats_tests ops_tests)
  install_packages $CROSS_PACKAGES
  step "building for ARM (cross, warnings as errors)"
  build build-arm64 "${targets[@]}" -- -DNARROW_UNITY=ON -DCMAKE_BUILD_TYPE=Release \
    -DNARROW_WERROR=ON -DNARROW_TESTS=ON -DCMAKE_TOOLCHAIN_FILE="$ROOT/cmake/toolchain-aarch64.cmake"
  step "testing for ARM (qemu)"
  GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=0 arm64_tests kernels '*' & pids+=($!)
  GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=1 arm64_tests kernels '*' & pids+=($!)
  for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
  # An older processor stops at any instruction that is too new for it.
  run_arm64 cortex-a76 "$ROOT/build-arm64/bin/kernels_tests" --gtest_brief=1 \
    --gtest_filter='Host/*:*PackedFormat.SameBits*/q4_0:*PackedFormat.SameBits*/q6_k'
  # qemu itself aborts when a child of a process with threads starts its own.
  arm64_tests base '-ThreadTeam.ChildOfAForkStartsItsOwn'
  [ "${1:-}" = all ] && test_arm64_program
  step "symbol check (ARM)"
  /usr/bin/python3 scripts/lib/check_symbols.py build-arm64
}

test_arm64_program() {
  local pids=() pid
  # Which kernels are chosen, and that they can be forced.
  expect_version max "neon_i8mm (the best of neon_i8mm, neon, generic"
  expect_version cortex-a76 "neon (the best of neon, generic"
  NARROW_ISA=neon expect_version max "neon (NARROW_ISA=neon of "
  NARROW_ISA=generic expect_version cortex-a76 "generic (NARROW_ISA=generic of "
  arm64_tests formats '*' & pids+=($!)
  # Debian's oneDNN for ARM has no bf16 products; the other takes half a minute for nothing that differs here.
  arm64_tests ops '-GemmBf16.Against*:Matmul.SameBits*' & pids+=($!)
  for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
}
