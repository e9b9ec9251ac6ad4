// What this build can do, for `narrow list` and for anyone who builds a menu.
#pragma once

#include <string>
#include <vector>

namespace narrow {

struct TypeRow {
  std::string name;
  double bpw = 0;
  int block_size = 0, block_bytes = 0;
  bool can_read = false, can_write = false;
  std::string description;
};
struct MixRow {  // a named mix of types, e.g. q4_k_m
  std::string name;
  std::string base_type;
  double typical_bpw = 0;  // on a Llama-shaped model, embeddings included
  std::string description;
};
struct MethodRow {
  std::string name, description;
  bool needs_calibration = false;
};
struct ArchRow {
  std::string name;                         // GGUF name
  std::vector<std::string> hf_model_types;  // config.json model_type values
};

std::vector<TypeRow> list_types();
std::vector<MixRow> list_mixes();
std::vector<MethodRow> list_methods();
std::vector<ArchRow> list_architectures();

}  // namespace narrow
