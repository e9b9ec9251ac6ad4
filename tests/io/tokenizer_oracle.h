// Texts for tokenizer tests, and what Python's tokenizers or sentencepiece package makes of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/digest.h"
#include "testing/testing.h"

namespace narrow::testing {

// Every file of shared/data/text.
inline std::vector<std::string> whole_texts() {
  std::vector<std::filesystem::path> files;
  for (const auto& e : std::filesystem::directory_iterator(shared_data() / "text")) files.push_back(e.path());
  std::sort(files.begin(), files.end());
  std::vector<std::string> texts;
  for (const auto& f : files) texts.push_back(read_file(f));
  return texts;
}

// Short hard cases: spaces, scripts, emoji, control characters, digits, special tokens' own texts.
inline std::vector<std::string> odd_texts() {
  std::vector<std::string> texts = {
      "",
      " ",
      "  ",
      "   \n  \n\n\n x",
      "a",
      "\n",
      "\r\n\r\n \r \t\t\n",
      "Hello world",
      " Hello  world   !",
      "trailing   ",
      "I've he'LL we'D 'tis it's O'Neil's 'RE ''''",
      "x=1;y=22;z=333;w=4444;v=55555;u=666666 1234567890 3.14 1,000,000",
      "² ³ ¼ Ⅷ ٣٤٥ १२३४ ④",
      "camelCase XMLHttpRequest snake_case __init__ kebab-case a.b.c",
      "na\u00efve cafe\u0301 A\u030a \u212b \ufb01 \u1e9b\u0323 ſ 's 'ſ",
      "我想在apple工作1314151天～。ひらがなカタカナ한국어",
      "हिन्दी ไทย ქართული עברית عربى",
      "🚀 😶\u200d🌫️ ✅🦙🦙 👩‍👩‍👧‍👦 🇩🇪",
      "\u00a0\u3000\u2028\u2029\u0085\u200b\u180e\ufeff x\u00a0y",
      "\x01\x02\x1b[0m\x7f \x1c\x1d",
      "▁▁ literal ▁meta ▁",
      "<s> </s> <unk> <pad> <|endoftext|> <|im_start|>user\n<|im_end|>",
      "a<|eot_id|>b <|begin_of_text|>  <|start_header_id|>x<|end_header_id|>\n\n",
      "[INST] hi [/INST]</s><s>x",
      "<think>\nhm\n</think> <tool_call>{\"a\": 1}</tool_call>",
      "<0x0A> <0xFF> <0x41>",
      "http://example.com/a?b=c&d=%20#e <div class=\"x\">&amp;</div>",
      "\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80",
      "ÀÉÎÕÜ àéîõü ßŒœ Ђђ Ωω Ǆǅǆ",
      "!!!???...,,,;;;:::---___***###$$$%%%^^^&&&((()))",
      "\t\tif (x) {\n\t\t\treturn y;\n\t\t}\n",
  };
  texts.push_back(std::string("nul\0nul \0", 9));
  texts.push_back(std::string(3000, ' ') + "x");
  texts.push_back(std::string(3000, 'a'));
  texts.push_back(std::string(700, '\n') + "  " + std::string(701, '7'));
  std::string cycle;
  for (int i = 0; i < 400; ++i) cycle += "ab" + std::string(static_cast<std::size_t>(i % 7), ' ') + "\u4e00";
  texts.push_back(cycle);
  // Cuts of a real text at places that no word border guards.
  const std::string many = read_file(shared_data() / "text" / "calib-multilingual.txt");
  for (std::size_t i = 0; i < 60 && (i + 1) * 4001 < many.size(); ++i) {
    std::size_t begin = i * 4001, end = begin + 300 + i * 7;
    while ((static_cast<unsigned char>(many[begin]) & 0xc0) == 0x80) ++begin;
    while ((static_cast<unsigned char>(many[end]) & 0xc0) == 0x80) ++end;
    texts.push_back(many.substr(begin, end - begin));
  }
  return texts;
}

struct OracleAnswer {
  std::vector<std::int32_t> ids;     // with the template's special tokens
  std::string decoded, decoded_all;  // special tokens left out, and kept; of short texts only
};
inline constexpr std::size_t kLongText = 100000;

inline constexpr const char* kOracleCode = R"py(
import sys, struct
which, folder, count, long_text = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
kind, *files = which.split("|")
texts = [open("%s/%d" % (folder, i), "rb").read().decode("utf8") for i in range(count)]
if kind == "spm":
    import sentencepiece
    sp = sentencepiece.SentencePieceProcessor(model_file=files[0])
    ids = [[sp.bos_id()] + sp.encode(t) for t in texts]
    decode = lambda x, skip: sp.decode([i for i in x if i != sp.bos_id()])
else:
    from tokenizers import Tokenizer, models, pre_tokenizers, decoders
    if kind == "gpt2":
        import json
        vocab = json.load(open(files[0], encoding="utf8"))
        lines = open(files[1], encoding="utf8").read().split("\n")[1:]
        tok = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(l.split(" ")) for l in lines if l]))
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tok.decoder = decoders.ByteLevel()
        tok.add_special_tokens(["<|endoftext|>"])
    else:
        tok = Tokenizer.from_file(files[0])
    ids = [e.ids for e in tok.encode_batch_fast(texts)]
    decode = lambda x, skip: tok.decode(x, skip_special_tokens=skip)
out = open(folder + "/answers", "wb")
def text_out(t):
    b = t.encode("utf8")
    out.write(struct.pack("<I", len(b)) + b)
for text, x in zip(texts, ids):
    out.write(struct.pack("<I", len(x)) + struct.pack("<%di" % len(x), *x))
    for skip in (True, False):
        text_out(decode(x, skip) if len(text) < long_text else "")
)py";

// `which`: "json|<tokenizer.json>", "gpt2|<encoder.json>|<vocab.bpe>" or "spm|<model file>".
inline std::vector<OracleAnswer> ask_oracle(const std::string& which, const std::vector<std::string>& texts) {
  // The packages take minutes for all texts of all tokenizers: what they said of the same input is kept.
  Sha256 digest;
  const auto add = [&](const std::string& x) {
    const std::string sized = std::to_string(x.size()) + ':' + x;
    digest.update(std::as_bytes(std::span<const char>(sized)));
  };
  add(kOracleCode);
  for (std::size_t at = which.find('|'); at != std::string::npos;) {
    const std::size_t next = which.find('|', at + 1);
    add(read_file(which.substr(at + 1, next == std::string::npos ? next : next - at - 1)));
    at = next;
  }
  for (const std::string& t : texts) add(t);
  const std::filesystem::path kept = cache_dir() / "oracle-ids" / digest.hex();
  TempDir dir;
  std::string bytes = std::filesystem::exists(kept) ? read_file(kept) : std::string();
  if (bytes.empty()) {
    for (std::size_t i = 0; i < texts.size(); ++i) write_file(dir / std::to_string(i), texts[i]);
    run_python(kOracleCode,
               {which, dir.path().string(), std::to_string(texts.size()), std::to_string(kLongText)});
    bytes = read_file(dir / "answers");
    std::error_code ec;
    std::filesystem::create_directories(kept.parent_path(), ec);
    auto file = AtomicFile::create(kept);
    if (file.ok() && file->write(bytes).ok()) EXPECT_OK(file->commit());
  }
  std::size_t at = 0;
  const auto size = [&] {
    std::uint32_t n = 0;
    if (at + 4 <= bytes.size()) std::memcpy(&n, bytes.data() + at, 4);
    at += 4;
    return static_cast<std::size_t>(n);
  };
  const auto text = [&] {
    const std::size_t n = size();
    at += n;
    return bytes.substr(at - n, n);
  };
  std::vector<OracleAnswer> answers;
  while (at < bytes.size()) {
    OracleAnswer a;
    a.ids.resize(size());
    if (!a.ids.empty()) std::memcpy(a.ids.data(), bytes.data() + at, a.ids.size() * 4);
    at += a.ids.size() * 4;
    a.decoded = text();
    a.decoded_all = text();
    answers.push_back(std::move(a));
  }
  EXPECT_EQ(answers.size(), texts.size());
  return answers;
}

inline std::string first_difference(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) {
  std::size_t i = 0;
  while (i < a.size() && i < b.size() && a[i] == b[i]) ++i;
  std::string out = "sizes " + std::to_string(a.size()) + " and " + std::to_string(b.size()) + ", at " +
                    std::to_string(i) + ":";
  for (std::size_t k = i; k < i + 8; ++k) {
    out +=
        ' ' + (k < a.size() ? std::to_string(a[k]) : "-") + '/' + (k < b.size() ? std::to_string(b[k]) : "-");
  }
  return out;
}

}  // namespace narrow::testing
