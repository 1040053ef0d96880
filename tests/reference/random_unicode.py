"""Compares simmer's tokens with those of Google's sentencepiece or of tiktoken, on random Unicode or on the texts of files.

    cargo build --release -p simmer-data --example encode
    python tests/reference/random_unicode.py tokenizer.model [--count 100000] [--seed 1]
    python tests/reference/random_unicode.py tokenizer.model --texts FOLDER    # every string of its JSON files

Prints differences. Decoded text is compared with the original library's, and with --texts also with the text itself.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from originals import original
from texts import NASTY, random_texts


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)


def texts_of(folder: Path):
    for path in sorted(folder.rglob("*.json*")):
        text = path.read_text(encoding="utf-8") if path.suffix in (".json", ".jsonl") else ""
        rows = text.split("\n") if path.suffix == ".jsonl" else [text]
        for row in rows:
            if row.strip():
                yield from strings(json.loads(row))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--encode", default="target/release/examples/encode")
    options = parser.parse_args()

    if options.texts:
        texts = list(dict.fromkeys(texts_of(options.texts)))
    else:
        texts = NASTY + list(random_texts(options.count, options.seed))
    lines = "".join(json.dumps(text, ensure_ascii=True) + "\n" for text in texts)
    ours = subprocess.run([options.encode, options.model], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    ours = [json.loads(line) for line in ours.stdout.splitlines()]
    assert len(ours) == len(texts)

    encode, decode = original(options.model)
    differ = {"ids": 0, "decoded": 0, "round trip": 0}
    tokens = 0
    for text, our in zip(texts, ours):
        ids = encode(text)
        tokens += len(ids)
        wrong = []
        if our["ids"] != ids:
            wrong.append("ids")
        elif our["decoded"] != decode(ids):
            wrong.append("decoded")
        if options.texts and our["decoded"] != text:
            wrong.append("round trip")
        for kind in wrong:
            differ[kind] += 1
            if differ[kind] <= 5:
                print(kind, repr(text[:200]), our["ids"][:40], ids[:40], repr(our["decoded"][:80]), sep="\n  ")
    print(f"{len(texts)} texts, {tokens} tokens; differ: {differ}")
    sys.exit(any(differ.values()))


if __name__ == "__main__":
    main()
