#!/usr/bin/env python3
"""Writes text.jsonl, instructions.json and heldout.json to its own folder:

    python3 data/kitchen/make.py

It uses only the standard library and one seed, so every machine writes the same files.
"""

import json
import random
from pathlib import Path

import prose
import tasks

SEED = 7
HERE = Path(__file__).parent


def paragraphs(r):
    """Different paragraphs of every kind, shuffled."""
    texts = {}
    for write, number in prose.PARAGRAPHS:
        wanted = len(texts) + number
        while len(texts) < wanted:
            texts[write(r)] = True
    texts = list(texts)
    r.shuffle(texts)
    return texts


def pages(r, texts):
    """One to three paragraphs per row, so that rows differ in length."""
    while texts:
        number = r.choice([1, 1, 2, 2, 3])
        yield "\n\n".join(texts[:number])
        texts = texts[number:]


def write_rows(name, rows, one_a_line=False):
    """Writes the rows as JSON Lines, or as a JSON list with one row per line."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "\n".join(lines) if one_a_line else "[\n" + ",\n".join(lines) + "\n]"
    (HERE / name).write_text(text + "\n", encoding="utf-8")
    print(f"{name}: {len(rows)} rows, {len(text) + 1} bytes")


def main():
    texts = list(pages(random.Random(SEED), paragraphs(random.Random(SEED))))
    kept, held = tasks.rows(random.Random(SEED))

    asked = [(row["instruction"], row["input"]) for row in kept + held]
    assert len(set(asked)) == len(asked), "a question appears twice"
    assert len(set(texts)) == len(texts), "a text appears twice"
    assert all(5 <= len(row["output"].split()) <= 40 for row in kept + held), (
        "an answer is too short or too long"
    )

    write_rows("text.jsonl", [{"text": text} for text in texts], one_a_line=True)
    write_rows("instructions.json", kept)
    write_rows("heldout.json", held)


if __name__ == "__main__":
    main()
