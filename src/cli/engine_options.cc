#include "cli/engine_options.h"

namespace narrow::cli {

void add_engine_options(CLI::App& sub, EngineOptions& options) {
  sub.add_option("--cache-type-k,--ctk", options.cache_type_k,
                 "Format of cached keys: f32, f16, q8_0 or q4_0; default f16, f32 for unquantized models and "
                 "with --compute float");
  sub.add_option("--cache-type-v,--ctv", options.cache_type_v, "Format of cached values, likewise");
  sub.add_flag("--rotate-keys", options.rotate_keys,
               "Cache keys after a Hadamard rotation: for 4-bit keys of small models");
  sub.add_option("--compute", options.compute,
                 "stored: products in the file's formats; w8a8 or w8a8-asymmetric: int8 weights per channel, "
                 "int8 activations per token; simulate: the same on fake-quantized fp32 matrices, slowly; "
                 "float: fp32 products of the decoded weights, slowly")
      ->capture_default_str();
}

}  // namespace narrow::cli
