#!/usr/bin/env python3
"""Text files as documents for `narrow pretrain`: {"text": ...} a line, a new one wherever the text says <|endoftext|>.

    scripts/lib/texts_to_jsonl.py TEXT... > texts.jsonl

Each document ends with the tokenizer's end of text in training; a file without the mark is one document.
"""
import json
import pathlib
import sys

for name in sys.argv[1:]:
    for document in pathlib.Path(name).read_text(encoding="utf-8").split("<|endoftext|>"):
        document = document.strip()
        if document:
            print(json.dumps({"text": document}, ensure_ascii=False))
