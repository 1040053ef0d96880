"""Generates data/evaluation-sets.bin, hashes of the public evaluation sets: evaluation_sets.py FOLDER

FOLDER has the sets as their authors publish them, under eval/, chat/ and self_instruct/ (READ names the files). Only
questions are read, not answers, and only the splits for evaluation: no training rows, no few-shot examples. The texts are
passed only to the example program `fingerprint`, which hashes them.
"""

import csv
import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = ["cargo", "run", "--quiet", "-p", "simmer-lint", "--example", "fingerprint", "data/evaluation-sets.bin"]


def lines(path: Path) -> list[dict]:
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as file:
        return [json.loads(line) for line in file]


def table(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def key(name: str):
    """A function that reads the text under one key of each line."""
    return lambda path: [row[name] for row in lines(path)]


def mmlu(folder: Path) -> list[str]:
    return [row[0] for path in sorted(folder.glob("*.csv")) for row in table(path)]


def bbh(folder: Path) -> list[str]:
    tasks = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [example["input"] for task in tasks for example in task["examples"]]


def mbpp(path: Path) -> list[str]:
    # 11 to 510 are the test split; the others are prompts, validation and training
    return [row["text"] for row in lines(path) if 11 <= row["task_id"] <= 510]


def self_instruct(path: Path) -> list[str]:
    rows = [(row["instruction"], row["instances"][0]["input"]) for row in lines(path)]
    return [f"{instruction}\n{given}" for instruction, given in rows]


def turns(path: Path) -> list[str]:
    return [turn for row in lines(path) for turn in row["turns"]]


def crows_pairs(path: Path) -> list[str]:
    return [sentence for row in table(path)[1:] for sentence in row[1:3]]


READ = [
    ("ARC-Challenge (test)", "eval/mc/ARC-Challenge.jsonl", key("question")),
    ("ARC-Easy (test)", "eval/mc/ARC-Easy.jsonl", key("question")),
    ("BIG-bench Hard", "eval/bbh", bbh),
    ("BoolQ (dev)", "eval/mc/boolq.jsonl", key("question")),
    ("CrowS-Pairs", "eval/crows_pairs_anonymized.csv", crows_pairs),
    ("GSM8K (test)", "eval/gsm8k/test.jsonl", key("question")),
    ("HellaSwag (validation)", "eval/mc/hellaswag_val.jsonl", key("query")),
    ("HumanEval", "eval/HumanEval.jsonl.gz", key("prompt")),
    ("IFEval", "eval/ifeval.jsonl", key("prompt")),
    ("Koala test set", "chat/koala_test_set.jsonl", key("prompt")),
    ("MATH-500", "eval/math500.jsonl", key("prompt")),
    ("MBPP (test)", "eval/mbpp.jsonl", mbpp),
    ("MMLU (test)", "eval/mmlu/test", mmlu),
    ("MMLU (validation)", "eval/mmlu/val", mmlu),
    ("MT-bench", "chat/mt_bench_question.jsonl", turns),
    ("Natural Questions (open, dev)", "eval/NQ-open.dev.jsonl", key("question")),
    ("OpenBookQA (test)", "eval/mc/openbookqa.jsonl", key("question")),
    ("PIQA (validation)", "eval/mc/piqa_valid.jsonl", key("goal")),
    ("Self-Instruct (user-oriented)", "self_instruct/user_oriented_instructions.jsonl", self_instruct),
    ("Social IQa (validation)", "eval/mc/social_i_qa.jsonl", key("question")),
    ("TruthfulQA", "eval/TruthfulQA.csv", lambda path: [row[2] for row in table(path)[1:]]),
    ("Vicuna bench", "chat/vicuna_bench_question.jsonl", turns),
    ("WinoGender", "eval/winogender/all_sentences.tsv", lambda path: [row[1] for row in table(path, "\t")[1:]]),
    ("WinoGrande (validation)", "eval/mc/winogrande.jsonl", key("sentence")),
]


def main() -> None:
    folder = Path(sys.argv[1])
    texts = [{"set": name, "text": text} for name, path, read in READ for text in read(folder / path)]
    given = "".join(json.dumps(text) + "\n" for text in texts)
    subprocess.run(EXAMPLE, input=given, text=True, check=True, cwd=REPOSITORY)
    for name, count in Counter(text["set"] for text in texts).items():
        print(f"{name}: {count} texts")


if __name__ == "__main__":
    main()
