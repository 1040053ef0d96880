"""Compares simmer's near-duplicates with rouge_score's, pair by pair: near_duplicates.py FILE.json...

The files have Alpaca rows; the text of a row is its instruction and input. Needs `pip install rouge-score==0.1.2`, which
Self-Instruct uses as a filter: a candidate is dropped if its ROUGE-L F score with an earlier one is above 0.7.
"""

import json
import subprocess
import sys
from pathlib import Path

from rouge_score import rouge_scorer
from rouge_score.tokenizers import DefaultTokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = ["cargo", "run", "--quiet", "-p", "simmer-lint", "--example", "near_duplicates"]


def ours(texts: list[str]) -> list[int | None]:
    """simmer's result for each text: the first earlier near-duplicate, or None."""
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    run = subprocess.run(EXAMPLE, input=lines, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return [json.loads(line) for line in run.stdout.splitlines()]


class Kept:
    """rouge_score's tokenizer with a cache."""

    def __init__(self) -> None:
        self.tokenizer = DefaultTokenizer(use_stemmer=False)
        self.tokens: dict[str, list[str]] = {}

    def tokenize(self, text: str) -> list[str]:
        if text not in self.tokens:
            self.tokens[text] = self.tokenizer.tokenize(text)
        return self.tokens[text]


def theirs(texts: list[str]) -> tuple[list[int | None], int]:
    """The same result from rouge_score over all pairs, and the number of pairs that it scored.

    Pairs of very different lengths are skipped: the longest common subsequence is at most as long as the shorter text, so
    their F is below 0.6.
    """
    kept = Kept()
    scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=kept)
    lengths = [len(kept.tokenize(text)) for text in texts]
    scored, found = 0, []
    for at, text in enumerate(texts):
        first = None
        for before in range(at):
            a, b = lengths[before], lengths[at]
            if not a or not b or 2 * min(a, b) / (a + b) < 0.6:
                continue
            scored += 1
            if scorer.score(texts[before], text)["rougeL"].fmeasure > 0.7:
                first = before
                break
        found.append(first)
    return found, scored


def main() -> None:
    rows = [row for file in sys.argv[1:] for row in json.loads(Path(file).read_text())]
    texts = [row["instruction"] + "\n" + row.get("input", "") for row in rows]
    mine, (expected, scored) = ours(texts), theirs(texts)
    near = sum(first is not None for first in expected)
    different = [at for at, pair in enumerate(zip(mine, expected)) if pair[0] != pair[1]]
    print(f"{len(texts)} texts, {scored} pairs scored, {near} near-duplicates; {len(different)} results differ")
    for at in different[:10]:
        print(f"  {at}: simmer {mine[at]}, rouge_score {expected[at]}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
