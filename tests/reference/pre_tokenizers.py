"""Generates tests/goldens/tokenizers/splits.json: where llama.cpp's pre-tokenizers split texts.

The patterns are those of `llm_tokenizer_bpe` in src/llama-vocab.cpp of llama.cpp (2026-08). Where llama.cpp replaces a
tokenizer's own pattern by a simpler one and quotes the original in a comment, it is the original. They are applied by
the `regex` module as in `unicode_regex_split`: one after another, each to the pieces of those before it. Matches and the
text between them become pieces.

Needs regex 2026.11.19: python tests/reference/pre_tokenizers.py
"""

import json
from pathlib import Path

import regex

from texts import NASTY

OUT = Path(__file__).resolve().parents[2] / "tests/goldens/tokenizers/splits.json"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
ENDS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = ENDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + REST
QWEN2 = ENDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + REST
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
START = r"[^\r\n\p{L}\p{N}]?"
SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = f"{START}{UPPER}*{LOWER}+{ENDS}?|{START}{UPPER}+{LOWER}*{ENDS}?|" + r"\p{N}{1,3}|" + SLASH
TEKKEN = f"{START}{UPPER}*{LOWER}+|{START}{UPPER}+{LOWER}*|" + r"\p{N}|" + SLASH
WORDS = r" ?[^(\s|.,!?…。，、।۔،)]+"
MARKS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
DEEPSEEK3 = MARKS + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HALVES = "".join(rf"|\s{{{2 ** power}}}(?!\S)" for power in range(9, 1, -1))

PATTERNS = {
    "llama-bpe": [LLAMA3],
    "dbrx": [LLAMA3],
    "gpt-2": [GPT2],
    "refact": [r"\p{N}", GPT2],
    "qwen2": [QWEN2],
    "deepseek-r1-qwen": [QWEN2],
    "qwen35": [ENDS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "gpt-4o": [GPT4O],
    "tekken": [TEKKEN],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
    "seed-coder": [ENDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "bailingmoe": [
        r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+"
    ],
    "exaone-moe": [
        ENDS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]"
        r"|\s+(?!\S)|\s+"
    ],
    "jais-2": [
        ENDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+" + HALVES
        + r"|\s{1,2}(?!\S)|\s{1}"
    ],
    "minicpm5": [r"\p{N}{1,3}", ENDS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+|" + REST],
    "laguna": [r"[^\n]+|[\n]+", QWEN2],
    "tiny_aya": [r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "poro-chat": [WORDS],
    "viking": [WORDS, r"\p{N}"],
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
}
# Patterns with `(?i:'s)` match the long s, llama.cpp's do not.
TEXTS = [text for text in NASTY if text and "ſ" not in text] + [
    "The 3 cats' 1234567 mice; I'M sure THEY'RE  fine.\n\n  - item/one\r\n\tx=1;",
    "Zubereitung: 250 g Mehl – 3 Eier… süß! Ça va? Où est l'œuf ?", "Ταχίστη αλώπηξ βαφής 12345 ψημένη γη",
    "日本語テキスト123と漢字。한글 텍스트!  中文，测试", "e\u0301te\u0301 cafe\u0301s Vie\u0302\u0323t", "fooBar HTTPServer XMLHttp2Request ÉTÉ éTé",
    "price: $1,234.56 (≈ €1 100) 50%!!!\n", "    def f(x):\n        return x**2  # ok\n\n\n",
]


def split(text, patterns):
    pieces = [text]
    for pattern in patterns:
        parts = []
        for piece in pieces:
            end = 0
            for match in regex.finditer(pattern, piece):
                parts += [piece[end : match.start()], match.group()]
                end = match.end()
            parts.append(piece[end:])
        pieces = [part for part in parts if part]
    return [len(piece) for piece in pieces]


def main():
    lines = [json.dumps({"texts": TEXTS})[1:-1]]
    splits = [f"{json.dumps(name)}: {json.dumps([split(text, patterns) for text in TEXTS], separators=(',', ':'))}"
              for name, patterns in PATTERNS.items()]
    lines.append('"splits": {\n' + ",\n".join(splits) + "\n}")
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
