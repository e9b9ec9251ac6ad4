#include "io/safetensors/reader.h"
#include "open_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  narrow::io::open_and_read<narrow::io::safetensors::Reader>(data, size);
  return 0;
}
