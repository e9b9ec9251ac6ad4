#include "runtime/taps.h"

namespace narrow::runtime {

Tap tap_of(std::string_view name) {
  const auto has = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  if (!name.starts_with("blk.")) return Tap::kHead;
  if (has("ffn_down_exps")) return Tap::kExpertDown;
  if (has("_exps")) return Tap::kExpert;
  if (has("ffn_down")) return Tap::kFfnDown;
  if (has("ffn_")) return Tap::kFeedForward;
  return has("attn_output") ? Tap::kAttnOutput : Tap::kAttention;
}

}  // namespace narrow::runtime
