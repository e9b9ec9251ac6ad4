#!/usr/bin/env python3
"""A SentencePiece BPE tokenizer for `narrow pretrain`, from texts (or .jsonl with {"text": ...}): OUT/tokenizer.model.

    pip install sentencepiece
    scripts/lib/train_tokenizer.py --size 2048 -o OUT texts.jsonl

Like Llama 2's: bytes for what no piece covers, one piece per digit, spaces as U+2581, no normalisation. The same file
for the same texts and version of sentencepiece, on any machine.
"""
import argparse
import json
import pathlib

import sentencepiece


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", type=pathlib.Path)
    parser.add_argument("--size", type=int, default=2048, help="tokens, 256 of them bytes")
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, help="folder")
    args = parser.parse_args()
    lines = []
    for text in args.texts:
        content = text.read_text(encoding="utf-8")
        if text.suffix == ".jsonl":
            content = "\n".join(json.loads(line)["text"] for line in content.splitlines())
        lines += content.splitlines()
    args.output.mkdir(parents=True, exist_ok=True)
    with open(args.output / "tokenizer.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(line for line in lines if line.strip()),
            model_writer=file,
            model_type="bpe",
            vocab_size=args.size,
            byte_fallback=True,
            character_coverage=0.9998,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            max_sentence_length=1 << 16,
            pad_id=-1,
            num_threads=1,
            minloglevel=1,
        )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(args.output / "tokenizer.model"))
    tokens = sum(len(processor.encode(line)) + 1 for line in lines)
    size = sum(text.stat().st_size for text in args.texts)
    print(f"{args.output / 'tokenizer.model'}: {processor.get_piece_size()} pieces, {tokens} tokens, "
          f"{size / tokens:.2f} bytes a token")


if __name__ == "__main__":
    main()
