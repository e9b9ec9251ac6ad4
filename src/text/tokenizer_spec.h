// Everything that defines a tokenizer, whichever files it came from. io/tokenizer/ fills it from
// tokenizer.json, tokenizer.model or GGUF metadata and writes it back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace narrow::text {

enum class TokenizerKind : std::uint8_t {
  kByteBpe,  // GPT-2 style: bytes as printable characters, merges by rank      (tokenizer.ggml.model = gpt2)
  kSpmBpe,   // SentencePiece BPE: merges by score, byte fallback               (tokenizer.ggml.model = llama)
  kUnigram,  // SentencePiece unigram: best path by log probability             (tokenizer.ggml.model = t5)
};

// GGUF's tokenizer.ggml.token_type ids (SentencePiece's piece types).
enum class TokenType : std::uint8_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

// A token matched in the raw text before the model sees it.
struct AddedToken {
  std::int32_t id = 0;
  bool special = false;  // left out by decode(skip_special)
  bool lstrip = false, rstrip = false, single_word = false, normalized = false;
};

// One step of the pre-tokenizer, in order (Hugging Face "pre_tokenizers").
struct PreStep {
  enum class Kind : std::uint8_t {
    kRegexSplit,  // pattern; behaviour Isolated unless `removed` or `invert`
    kByteLevel,   // map bytes to printable characters; splits by GPT-2's pattern when `use_regex`
    kDigits,      // runs of digits; single digits when `individual`
    kPunctuation,
    kWhitespace,
    kWhitespaceSplit,
    kMetaspace,  // spaces to U+2581, split before them when `split`
  };
  Kind kind = Kind::kRegexSplit;
  std::string pattern;
  bool use_regex = true, individual = false, add_prefix_space = false, split = true;
  bool invert = false, removed = false;
  enum class Merge : std::uint8_t {
    kIsolated,
    kMergedWithPrevious,
    kMergedWithNext,
    kContiguous
  } merge = Merge::kIsolated;
  std::string prepend_scheme;  // metaspace: "always", "first", "never"
};

// One step of the normalizer, in order.
struct NormStep {
  enum class Kind : std::uint8_t {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kPrepend,
    kReplace,
    kStrip,
    kPrecompiled
  } kind = Kind::kNfc;
  std::string pattern, content;  // replace / prepend; content: SentencePiece's precompiled_charsmap
  bool is_regex = false;
  bool left = false, right = false;  // strip
};

// One step of the decoder, in order: each works on the list of token texts (Hugging Face "decoders").
struct DecodeStep {
  enum class Kind : std::uint8_t {
    kByteLevel,     // printable characters back to bytes; joins the list
    kByteFallback,  // runs of <0xXX> to the text that they spell, or U+FFFD each
    kReplace,       // pattern to content in each text
    kFuse,          // joins the list
    kStrip,         // up to `start` and `stop` times `content` off both ends of each text
    kMetaspace,     // U+2581 to spaces; none in the first token when `drop_first`
  } kind = Kind::kByteLevel;
  std::string pattern, content;
  bool is_regex = false, drop_first = false;
  int start = 0, stop = 0;
};

struct TokenizerSpec {
  TokenizerKind kind = TokenizerKind::kByteBpe;
  std::vector<std::string> tokens;  // stored text by id
  std::vector<float> scores;        // kSpmBpe, kUnigram; empty otherwise
  std::vector<TokenType> types;     // one per token
  std::vector<std::pair<std::string, std::string>>
      merges;  // by rank; kByteBpe (and kSpmBpe from tokenizer.json)
  std::vector<AddedToken> added;
  std::vector<NormStep> normalizer;
  std::vector<PreStep> pre_tokenizer;
  std::vector<DecodeStep> decoder;
  std::optional<std::int32_t> bos, eos, unk, pad, eot, sep, mask;
  std::vector<std::int32_t> end_tokens;  // all ids that end generation, eos included
  bool add_bos = false, add_eos = false;
  bool byte_fallback = false;
  bool ignore_merges = false;             // a word that is in the vocabulary is taken whole (Llama 3)
  bool add_space_prefix = false;          // SentencePiece's dummy prefix
  bool remove_extra_whitespaces = false;  // SentencePiece's normalizer
  bool fuse_unknown = false;
  bool unk_for_bytes = false;        // kByteBpe: bytes that lack a token become unk; else they vanish
  bool clean_up_spaces = false;      // tokenizer_config's clean_up_tokenization_spaces
  bool decode_strips_space = false;  // decoding drops one leading space (the dummy prefix)
  std::string ggml_pre;              // tokenizer.ggml.pre, or empty when unknown
  std::string chat_template;         // Jinja source; empty when there is none
};

}  // namespace narrow::text
