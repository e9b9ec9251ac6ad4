#include "calib/tokens.h"

#include <algorithm>
#include <numeric>

namespace narrow::calib {
namespace {

struct Stretch {
  std::size_t document = 0;
  std::int64_t begin = 0, tokens = 0;
};

std::int64_t length(const std::vector<std::int32_t>& document) {
  return static_cast<std::int64_t>(document.size());
}

// Equal shares of `budget`, none larger than what is there.
std::vector<std::int64_t> shares(const std::vector<std::int64_t>& available, std::int64_t budget) {
  std::vector<std::size_t> order(available.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return available[a] < available[b]; });
  std::vector<std::int64_t> out(available.size(), 0);
  auto left = static_cast<std::int64_t>(order.size());
  for (const std::size_t i : order) {
    out[i] = std::min(available[i], budget / left);
    budget -= out[i];
    --left;
  }
  return out;
}

// About `share` tokens of one long document: windows of `width` with even gaps around them.
std::vector<Stretch> spread_over(std::int64_t tokens, std::int64_t width, std::int64_t share) {
  if (tokens <= width) return {{0, 0, tokens}};
  const std::int64_t n = std::clamp((share + width / 2) / width, std::int64_t{1}, tokens / width);
  const std::int64_t gaps = tokens - n * width;
  std::vector<Stretch> out;
  for (std::int64_t j = 0; j < n; ++j) out.push_back({0, j * width + gaps * (2 * j + 1) / (2 * n), width});
  return out;
}

// About `share` tokens of many documents, each cut from its start.
std::vector<Stretch> choose_from(const std::vector<std::vector<std::int32_t>>& documents, std::int64_t width,
                                 std::int64_t share) {
  std::vector<Stretch> all;
  std::int64_t tokens = 0;
  for (std::size_t d = 0; d < documents.size(); ++d) {
    for (std::int64_t at = 0; at < length(documents[d]); at += width) {
      all.push_back({d, at, std::min(width, length(documents[d]) - at)});
      tokens += all.back().tokens;
    }
  }
  const auto count = static_cast<std::int64_t>(all.size());
  const std::int64_t mean = std::max<std::int64_t>(1, tokens / count);
  const std::int64_t n = std::clamp((share + mean / 2) / mean, std::int64_t{1}, count);
  std::vector<Stretch> out;
  for (std::int64_t j = 0; j < n; ++j) {
    out.push_back(all[static_cast<std::size_t>(count * (2 * j + 1) / (2 * n))]);
  }
  return out;
}

Status check(const CutOptions& o) {
  if (o.n_ctx < 2 || o.n_ctx > kMaxWindow) {
    return make_error(ErrorCode::kInvalidArgument, "windows of {} tokens to calibrate on: use 2 to {}",
                      o.n_ctx, kMaxWindow);
  }
  if (o.max_tokens < 0) {
    return make_error(ErrorCode::kInvalidArgument, "{} tokens to calibrate on: use 1 or more, or 0 for all",
                      o.max_tokens);
  }
  return {};
}

}  // namespace

Result<CutTexts> cut_texts(std::span<const TokenText> texts, const CutOptions& options) {
  NARROW_TRY(check(options));
  std::vector<std::int64_t> available;
  for (const TokenText& t : texts) {
    std::int64_t n = 0;
    for (const auto& d : t.documents) n += length(d);
    available.push_back(n);
  }
  if (std::accumulate(available.begin(), available.end(), std::int64_t{0}) == 0) {
    return make_error(ErrorCode::kInvalidArgument, "{}: no text to calibrate on: it has no token at all",
                      texts.empty() ? std::string("calibration") : texts.front().name);
  }
  const std::int64_t width = options.n_ctx - (options.bos ? 1 : 0);
  const std::vector<std::int64_t> share =
      options.max_tokens == 0 ? available : shares(available, options.max_tokens);
  CutTexts out;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    TextUse use = {texts[i].name, available[i], 0, 0};
    std::vector<Stretch> pieces;
    // A share of nothing, where there are more texts than tokens asked for.
    if (share[i] > 0) {
      pieces = texts[i].documents.size() == 1 ? spread_over(available[i], width, share[i])
                                              : choose_from(texts[i].documents, width, share[i]);
    }
    for (const Stretch& p : pieces) {
      const auto from = texts[i].documents[p.document].begin() + p.begin;
      if (options.bos) out.windows.tokens.push_back(*options.bos);
      out.windows.tokens.insert(out.windows.tokens.end(), from, from + p.tokens);
      out.windows.lengths.push_back(p.tokens + (options.bos ? 1 : 0));
      use.used += p.tokens;
      ++use.windows;
    }
    out.texts.push_back(std::move(use));
  }
  return out;
}

std::string describe(const CutTexts& cut, std::int64_t asked) {
  std::int64_t available = 0, used = 0;
  std::string unused;
  for (const TextUse& t : cut.texts) {
    available += t.available;
    used += t.used;
    if (t.used == 0) unused += fmt::format("{}{}", unused.empty() ? "; nothing used of " : ", ", t.name);
  }
  return fmt::format("calibration: {} tokens asked for, {} there, {} used in {} windows, {} dropped{}",
                     asked == 0 ? std::string("all") : std::to_string(asked), available, used,
                     cut.windows.lengths.size(), available - used, unused);
}

}  // namespace narrow::calib
