#include "io/tokenizer/sentencepiece_model.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "io/tokenizer/spm_steps.h"
#include "text/tokenizer_unicode.h"

namespace narrow::io {
namespace {

using text::AddedToken;
using text::TokenizerKind;
using text::TokenizerSpec;
using text::TokenType;

constexpr std::size_t kMaxPieces = 1u << 24;

// Protobuf's wire format: (tag << 3 | type), then a varint, 8 bytes, length and bytes, or 4 bytes.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : bytes_(bytes) {}

  struct Field {
    std::uint32_t tag = 0;
    std::uint64_t number = 0;  // varint and fixed types
    std::string_view content;  // length-delimited type
    bool is_bytes = false;
  };
  bool done() const { return at_ == bytes_.size(); }

  Result<Field> next() {
    NARROW_ASSIGN(const std::uint64_t key, varint());
    if (key >> 3 == 0 || key >> 3 > 0x1fffffff) return corrupt("a field number out of range");
    Field f;
    f.tag = static_cast<std::uint32_t>(key >> 3);
    switch (key & 7) {
      case 0: {
        NARROW_ASSIGN(f.number, varint());
        return f;
      }
      case 1: {
        NARROW_ASSIGN(f.content, take(8));
        std::memcpy(&f.number, f.content.data(), 8);
        return f;
      }
      case 2: {
        NARROW_ASSIGN(const std::uint64_t size, varint());
        NARROW_ASSIGN(f.content, take(size));
        f.is_bytes = true;
        return f;
      }
      case 5: {
        NARROW_ASSIGN(f.content, take(4));
        std::uint32_t low = 0;
        std::memcpy(&low, f.content.data(), 4);
        f.number = low;
        return f;
      }
      default:
        return corrupt("an unknown wire type");
    }
  }

 private:
  Error corrupt(const char* what) const {
    return make_error(ErrorCode::kCorrupt, "SentencePiece model: {} at byte {} of {}", what, at_,
                      bytes_.size());
  }
  Result<std::string_view> take(std::uint64_t n) {
    if (n > bytes_.size() - at_) return corrupt("a field that ends past the data");
    const std::string_view s = bytes_.substr(at_, n);
    at_ += n;
    return s;
  }
  Result<std::uint64_t> varint() {
    std::uint64_t x = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (done()) return corrupt("a number that ends past the data");
      const auto b = static_cast<unsigned char>(bytes_[at_++]);
      x |= static_cast<std::uint64_t>(b & 0x7f) << shift;
      if (b < 0x80) return x;
    }
    return corrupt("a number of more than 64 bits");
  }

  std::string_view bytes_;
  std::size_t at_ = 0;
};

struct Model {
  TokenizerSpec spec;
  std::uint64_t model_type = 1;
  std::int64_t unk = 0, bos = 1, eos = 2, pad = -1;
  bool dummy_prefix = true, remove_extra = true, escape = true, suffix = false;
  std::string charsmap;
};

Status read_piece(std::string_view bytes, TokenizerSpec& spec) {
  WireReader r(bytes);
  std::string piece;
  float score = 0;
  std::uint64_t type = 1;
  while (!r.done()) {
    NARROW_ASSIGN(const WireReader::Field f, r.next());
    if (f.tag == 1 && f.is_bytes) piece = f.content;
    if (f.tag == 2) score = std::bit_cast<float>(static_cast<std::uint32_t>(f.number));
    if (f.tag == 3) type = f.number;
  }
  if (spec.tokens.size() >= kMaxPieces) {
    return make_error(ErrorCode::kCorrupt, "SentencePiece model: more than {} pieces", kMaxPieces);
  }
  if (type < 1 || type > 6 || !std::isfinite(score)) {
    return make_error(ErrorCode::kCorrupt, "SentencePiece model: piece {} has type {} and score {}",
                      spec.tokens.size(), type, score);
  }
  spec.tokens.push_back(std::move(piece));
  spec.scores.push_back(score);
  // The proto numbers types as GGUF does.
  spec.types.push_back(static_cast<TokenType>(type));
  return {};
}

Status read_trainer(std::string_view bytes, Model& m) {
  WireReader r(bytes);
  while (!r.done()) {
    NARROW_ASSIGN(const WireReader::Field f, r.next());
    const auto id = static_cast<std::int64_t>(static_cast<std::int32_t>(f.number));
    switch (f.tag) {
      case 3:
        m.model_type = f.number;
        break;
      case 24:
        m.suffix = f.number != 0;
        break;
      case 35:
        m.spec.byte_fallback = f.number != 0;
        break;
      case 40:
        m.unk = id;
        break;
      case 41:
        m.bos = id;
        break;
      case 42:
        m.eos = id;
        break;
      case 43:
        m.pad = id;
        break;
      default:
        break;
    }
  }
  return {};
}

Status read_normalizer(std::string_view bytes, Model& m) {
  WireReader r(bytes);
  while (!r.done()) {
    NARROW_ASSIGN(const WireReader::Field f, r.next());
    switch (f.tag) {
      case 2:
        m.charsmap = f.content;
        break;
      case 3:
        m.dummy_prefix = f.number != 0;
        break;
      case 4:
        m.remove_extra = f.number != 0;
        break;
      case 5:
        m.escape = f.number != 0;
        break;
      default:
        break;
    }
  }
  return {};
}

}  // namespace

Result<TokenizerSpec> parse_sentencepiece(std::string_view bytes) {
  Model m;
  TokenizerSpec& spec = m.spec;
  WireReader r(bytes);
  while (!r.done()) {
    NARROW_ASSIGN(const WireReader::Field f, r.next());
    if (!f.is_bytes) continue;
    if (f.tag == 1) NARROW_TRY(read_piece(f.content, spec));
    if (f.tag == 2) NARROW_TRY(read_trainer(f.content, m));
    if (f.tag == 3) NARROW_TRY(read_normalizer(f.content, m));
  }
  if (spec.tokens.empty()) return make_error(ErrorCode::kCorrupt, "SentencePiece model: no pieces");
  if (m.model_type != 1 && m.model_type != 2) {
    return make_error(ErrorCode::kUnsupported,
                      "SentencePiece model: type {} (only unigram, 1, and BPE, 2, are known)", m.model_type);
  }
  if (!m.escape || m.suffix) {
    return make_error(ErrorCode::kUnsupported,
                      "SentencePiece model: spaces kept as spaces or written as suffixes");
  }
  spec.kind = m.model_type == 2 ? TokenizerKind::kSpmBpe : TokenizerKind::kUnigram;
  const auto id = [&](std::int64_t x) {
    const bool there = x >= 0 && static_cast<std::uint64_t>(x) < spec.tokens.size();
    return there ? std::optional<std::int32_t>(static_cast<std::int32_t>(x)) : std::nullopt;
  };
  spec.unk = id(m.unk);
  spec.bos = id(m.bos);
  spec.eos = id(m.eos);
  spec.pad = id(m.pad);
  spec.add_bos = spec.kind == TokenizerKind::kSpmBpe && spec.bos;
  spec.add_eos = spec.kind == TokenizerKind::kUnigram && spec.eos;
  spec.fuse_unknown = true;
  spec.add_space_prefix = m.dummy_prefix;
  spec.remove_extra_whitespaces = m.remove_extra;
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    const TokenType t = spec.types[i];
    if (t != TokenType::kControl && t != TokenType::kUnknown && t != TokenType::kUserDefined) continue;
    AddedToken a;
    a.id = static_cast<std::int32_t>(i);
    a.special = t != TokenType::kUserDefined;
    // Added tokens are found in the raw text, where spaces are spaces.
    if (!a.special) text::replace_all(spec.tokens[i], text::kMetaChar, " ");
    spec.added.push_back(a);
  }
  set_spm_steps(m.charsmap, spec);
  spec.ggml_pre = "default";
  return std::move(m.spec);
}

}  // namespace narrow::io
