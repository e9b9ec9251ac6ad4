// How a model is run: what the engine keeps in memory and computes with.
#pragma once

#include <string>

namespace narrow {

struct EngineOptions {
  // Formats of cached keys and values: "f32", "f16", "q8_0" or "q4_0". Empty: f16, and f32 for a model
  // none of whose weights are quantized, or with `compute` "float".
  std::string cache_type_k, cache_type_v;
  // Keys are turned by a Hadamard rotation before they are cached, so that channels with outliers share
  // their range with the others: small models need it for 4-bit keys.
  bool rotate_keys = false;
  // "stored": products in the weights' own formats. "w8a8": weights become int8 per output channel when the
  // model is loaded, activations int8 per token as they come; "w8a8-asymmetric": those with a zero point.
  // Files made by quantize with w8a8 or w4a8 say themselves what they compute. "simulate": the same in
  // floating point on fake-quantized matrices, slowly. "float": fp32 products of the decoded weights, so that
  // only what the file lost is measured, not the rounding of activations; slow, and not for int8 files.
  std::string compute = "stored";
};

}  // namespace narrow
