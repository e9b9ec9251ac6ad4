// Scales that a model can take on one side of a product and undo on the other, with no change of what it
// computes: the places where AWQ and SmoothQuant fold their factors into the weights.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/overlay.h"
#include "model/source.h"
#include "model/transformed.h"

namespace narrow::model {

enum class FoldKind : std::uint8_t {
  kAttnNorm,     // gain (and bias) of the norm before attention -> q, k, v or qkv
  kFfnNorm,      // gain (and bias) of the norm before feed-forward -> gate, up, or router and experts
  kUpDown,       // rows of up (a gated layer's linear branch, or up before relu) -> down
  kValueOutput,  // rows of v -> attn_output; one factor per channel of a key/value head
  kFinalNorm,    // gain (and bias) of the final norm -> an output matrix of its own
  kKeyQuery,     // rows of k -> rows of q; the two rows that rope turns into each other share a factor
};
std::string_view fold_name(FoldKind kind);  // "attn_norm", "ffn_norm", "up_down", ...

// A stretch of rows of one tensor, and which channel each of its rows or columns belongs to. Vectors are one
// row.
struct FoldPart {
  std::size_t tensor = 0;  // index into the source's tensors
  std::int64_t row_begin = 0, row_end = 0;
  bool columns = true;                // channels go along a row; false: each row is one channel
  std::vector<std::int32_t> channel;  // [row_length], or [row_end - row_begin]
};

// Divide the producers by s, multiply the consumers by s, channel by channel: what flows between them is
// divided by s, all else stays. For every s > 0.
struct FoldGroup {
  FoldKind kind = FoldKind::kAttnNorm;
  std::int64_t layer = 0;    // n_layer for kFinalNorm
  std::int64_t expert = -1;  // kUpDown of one expert
  std::string name;          // "blk.3.up_down", "blk.3.up_down[5]" (an expert), "final_norm"
  std::int64_t channels = 0;
  std::vector<FoldPart> producers, consumers;
};

struct FoldRefusal {
  FoldKind kind = FoldKind::kAttnNorm;
  std::string reason;  // a sentence
};

struct FoldPlan {
  std::vector<FoldGroup> groups;     // in the order of the layers
  std::vector<FoldRefusal> refused;  // kinds of places that cannot take scales, once each
};

// Every place of the model. Reads names, shapes and settings only. A tensor that the settings promise but the
// file lacks is kNotFound.
Result<FoldPlan> find_folds(const ModelSource& source);

// One value per channel from one per row or column of the part: the greatest, or the mean, of those that
// share a channel.
std::vector<float> channel_max(const FoldPart& part, std::int64_t channels, std::span<const float> values);
std::vector<float> channel_mean(const FoldPart& part, std::int64_t channels, std::span<const float> values);

// Multiplies rows [row_begin, row_end) of the part's tensor, in `rows`, by the factor of each channel. Rows
// outside the part stay.
void scale_part(const FoldPart& part, std::span<const float> factors, std::int64_t row_begin,
                std::int64_t row_end, std::int64_t row_length, float* rows);

// Replaces the group's tensors by fp32 ones with the scales folded in. kInvalidArgument: not one scale per
// channel, or one that is not positive and finite (it names group, channel and value).
Status apply_fold(const FoldGroup& group, std::span<const float> scale, OverlaySource& overlay);
// The same as changes of a source that computes its tensors as they are read.
Status apply_fold(const FoldGroup& group, std::span<const float> scale, TransformedSource& source);
// The checks alone.
Status check_scales(const FoldGroup& group, std::span<const float> scale);

}  // namespace narrow::model
