"""Texts on which tokenizers tend to disagree, and random texts."""

import random
import sys

NASTY = [
    "", " ", "  ", "   ", " a", "  a", "a ", "a  ", " a b  c   d    e     f ", "\t", "\n", "\r\n", "\n\n\n", " \n ", "\t\tx\t",
    "▁", "▁▁", " ▁", "▁ ", "a▁b", "▁▁▁a", "a▁▁ ▁b", "\u00a0", "a\u00a0b", "\u3000", "\u200b", "\u200d", "\ufeff", "\ufffd",
    "\x00", "a\x00b", "\x01\x02\x1f\x7f\x80\x9f", "0", "00", "1234567890", "12 34", " 1", "1 000 000", "3.14159", "²³½Ⅷ१२३",
    "é", "e\u0301", "e\u0301\u0323", "ﬁ ligature ①", "ｶﾞ ﾊﾟ", "Å Å Å", "한국어 \u1112\u1161\u11ab", "naïve café “quotes”", "straße STRASSE",
    "Ünïcödé ✓", "こんにちは世界", "你好，世界！", "नमस्ते दुनिया", "สวัสดี", "שלום עולם", "مرحبا بالعالم", "Привет, мир", "🦙", "👩‍👩‍👧‍👦🏳️‍🌈", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "\U0010ffff\U000f0000", "\u0378", "<s>", "</s>", "<unk>", "<s>a</s>", "<0x0A>", "<0x41><0x42>", "<|begin_of_text|>", "<|eot_id|>x",
    "[INST] hi [/INST]", "### Response:\n", "don't I'LL we'Re 'S 'ſ", "https://example.com/a?b=c&d=%20", "snake_case camelCase kebab-case",
    "if (x == y) {\n\treturn a[0] += 1;\n}\n", "a" * 100, "ab" * 60, "aab" * 40, "-" * 77, "=" * 33 + "-" * 31, " " * 63, "\n" * 40,
    " \n" * 20, "▁ " * 15, "0" * 50, "é" * 40, "🦙" * 20, "the the the  the   the", "Beat the egg with a whisk.", "the milk, the flour and the sugar",
    "the<x>sugar</x> and<x>", "<x>", "<x> ", " <x>", "<x><x>", "a<x>b", "<xx>", "<x", "sugar<xy>z", "\u2028\u2029", "a\u0000\u0001b\uffff",
]

RANGES = [
    (0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x61, 0x64), (0x30, 0x39), (0x00, 0x1F), (0x7F, 0xFF),
    (0x100, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF),
    (0x2000, 0x206F), (0x2070, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF),
    (0xFB00, 0xFFFF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x2FFFF), (0x0, 0xD7FF), (0x10000, 0x10FFFF),
]
WORDS = ["the", "and", "▁", " ", "  ", "\n", "\t", "'s", "'LL", "</s>", "<s>", "<x>", "<0x0A>", "hello", "1234", "__init__", "://"]


def random_text(rng: random.Random) -> str:
    """Characters of one script at a time, words, repetitions and spaces, up to a few hundred characters."""
    text = []
    for _ in range(rng.choice([1, 1, 2, 3, 5, 8])):
        kind = rng.random()
        if kind < 0.25:
            text.append(rng.choice(WORDS) * rng.choice([1, 1, 1, 2, 3, 17]))
        elif kind < 0.4:
            text.append(" " * rng.choice([1, 1, 2, 3, 5, 16, 17, 40]))
        elif kind < 0.5:
            text.append(rng.choice(["a", "ab", "-", "=", "▁", "\n", "0", "aab", "é", "the "]) * rng.randint(1, 40))
        else:
            low, high = rng.choice(RANGES)
            text.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 12))))
    return "".join(text)


def random_texts(count: int, seed: int = 1):
    rng = random.Random(seed)
    for _ in range(count):
        yield random_text(rng)


if __name__ == "__main__":
    for text in random_texts(int(sys.argv[1])):
        print(repr(text))
