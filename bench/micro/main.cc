#include "micro/micro.h"

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  for (const narrow::kernels::KernelTable* kt : narrow::kernels::available_kernels(narrow::cpu_features())) {
    narrow::micro::register_rows(*kt);
    narrow::micro::register_products(*kt);
    narrow::micro::register_attention(*kt);
  }
  narrow::micro::register_sampling();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
