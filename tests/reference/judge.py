#!/usr/bin/env python3
"""What FastChat's judge makes of texts, and intervals by SciPy and scikit-learn: tests/goldens/judge.

    tests/reference/judge.py FASTCHAT

FASTCHAT is a clone of github.com/lm-sys/FastChat. Its functions `run_judge_single`, `run_judge_pair` and
`display_result_pairwise` are run as they are, with a judge that says the texts below. Needs numpy, scipy, scikit-learn, pandas.
"""

import argparse
import ast
import json
import re
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import LogisticRegression

from files import write_json

OUT = Path(__file__).resolve().parent.parent / "goldens" / "judge"

# the first words of texts that hold a verdict, or only seem to
TEXTS = [
    "Rating: [[5]]",
    "Rating: [[5.5]]",
    "Rating: [5]",
    "Rating: [7.]",
    "Rating: [[10]] out of [[10]]",
    "First [3], later [[8]]",
    "[[ 5 ]]",
    "[[5 ]] and [6]",
    "[[-5]]",
    "[-5]",
    "[[5/10]]",
    "[[5]/10]",
    "[[.5]]",
    "[[5,5]]",
    "[[1e3]]",
    "[[0]]",
    "[[11]]",
    "[[00]]",
    "[[05.50]]",
    "[[rating]]",
    "[[rating: 6]]",
    "\"[[rating]]\", for example: \"Rating: [[5]]\". Rating: [[9]]",
    "Rating: 7",
    "Rating: [[seven]]",
    "Rating: [[[4]]]",
    "Rating: [[4",
    "Rating: [4]]",
    "Rating: [[4] ]",
    "Rating: [\n[4]\n]",
    "[1] a citation, and [2] another; **Rating: [[6.25]]**",
    "[1] a citation, and [2] another; no rating",
    "",
    " ",
    "I cannot rate this.",
    "[[A]]",
    "[[B]]",
    "[[C]]",
    "[[a]]",
    "[A]",
    "[[ A ]]",
    "[[A]], not [[B]]",
    "[[B]], although [[A]] is shorter",
    "[[C]] or [[B]]",
    "Either \"[[A]]\" if assistant A is better, \"[[B]]\" if assistant B is better, and \"[[C]]\" for a tie.",
    "My final verdict is: [[B]].\n\n[[A]",
    "[[\nA]]",
    "[[A]",
    "[[AB]]",
    "[[A]]]]",
    "[[[B]]]",
    "[[D]]",
    "[[А]] in Cyrillic",
    "[[C]]\u2028[[5]]",
    "[[8]]\u0000",
    "<b>[[9]]</b>",
]
# the original stops with an error
ERRORS = ["[[05]]", "[[٣]]", "[[５]]", "[[5٣]]"]

QUESTION = {"question_id": 1, "turns": ["Add {x} and {{y}}?", "Now {answer_a}.\n\nReally?"]}
ANSWERS = [
    {"choices": [{"turns": ["{answer_b} & <b>\n", "second of A {question_1}"]}]},
    {"choices": [{"turns": ["first of B }", "{ second of B"]}]},
]
REFERENCE = {"choices": [{"turns": ["reference {ref_answer_2}", "reference two"]}]}


def original(path: Path, names: list[str], more: dict) -> dict:
    """Functions and patterns of a file of the original, without what it imports."""
    found = dict(more)
    for node in ast.parse(path.read_text()).body:
        targets = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
        if getattr(node, "name", None) in names or any("pattern" in target for target in targets):
            exec(compile(ast.Module([node], []), str(path), "exec"), found)  # noqa: S102
    return found


def judged(folder: Path) -> tuple[list, list]:
    said = {"text": ""}
    systems: list[str] = []

    def conversation(_model):
        return SimpleNamespace(
            roles=("user", "assistant"),
            append_message=lambda *_: None,
            set_system_message=systems.append,
        )

    common = original(
        folder / "common.py",
        ["run_judge_single", "run_judge_pair"],
        {
            "re": re,
            "ast": ast,
            "get_conversation_template": conversation,
            "OPENAI_MODEL_LIST": ["judge"],
            "ANTHROPIC_MODEL_LIST": [],
            "chat_completion_openai": lambda *_, **__: said["text"],
            "TIE_DELTA": 0.1,
        },
    )
    lines = (folder / "data/judge_prompts.jsonl").read_text().splitlines()
    prompts = {prompt["name"]: prompt for prompt in map(json.loads, lines)}

    def run(name: str, text: str):
        said["text"] = text
        judge = SimpleNamespace(model_name="judge", prompt_template=prompts[name])
        reference = REFERENCE if "math" in name else None
        second = "multi-turn" in name
        if prompts[name]["type"] == "single":
            return common["run_judge_single"](QUESTION, ANSWERS[0], judge, reference, multi_turn=second)
        return common["run_judge_pair"](QUESTION, *ANSWERS, judge, reference, multi_turn=second)

    verdicts = []
    for text in TEXTS:
        rating, winner = run("single-v1", text)[0], run("pair-v2", text)[0]
        verdicts.append({"text": text, "rating": None if rating == -1 else rating, "winner": winner})
    for text in ERRORS:
        try:
            run("single-v1", text)
        except (SyntaxError, ValueError):
            continue
        sys.exit(f"the original reads {text}")
    filled = []
    for name in prompts:
        systems.clear()
        user = run(name, "[[A]] [[1]]")[1]
        filled.append({"name": name, "system": systems[0], "user": user})
    return verdicts, filled


def shares(folder: Path) -> dict:
    """Wins, losses and ties of random verdicts in both orders."""
    random = np.random.default_rng(3)
    names = ["model_1", "model_2", "tie", "error"]
    rows = [
        {"model_1": "one", "model_2": "two", "g1_winner": str(first), "g2_winner": str(second)}
        for first, second in random.choice(names, (80, 2), p=[0.4, 0.3, 0.2, 0.1])
    ]
    printed = []
    show = original(
        folder / "show_result.py",
        ["display_result_pairwise"],
        {"pd": pd, "print": lambda *values: printed.extend(values)},
    )
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
        file.flush()
        show["display_result_pairwise"](argparse.Namespace(input_file=file.name, model_list=None, baseline_model=None))
    table = next(value for value in printed if isinstance(value, pd.DataFrame))
    one = table.loc["one"]
    return {
        "verdicts": [[row["g1_winner"], row["g2_winner"]] for row in rows],
        "wins": int(one["win"]),
        "losses": int(one["loss"]),
        "ties": int(one["tie"]),
        "win_rate": float(one["win_rate_adjusted"]),
    }


def wilson() -> list[dict]:
    cases = [(0, 5), (5, 5), (1, 2), (7, 10), (50, 80), (123, 252)]
    found = []
    for wins, count in cases:
        interval = stats.binomtest(wins, count).proportion_ci(method="wilson")
        found.append({"wins": wins, "count": count, "interval": [float(interval.low), float(interval.high)]})
    return found


def means() -> list[dict]:
    found = []
    for seed, count in [(0, 10), (1, 80)]:
        random = np.random.default_rng(seed)
        # two turns of a question depend on each other, and some have no verdict
        level = random.normal(7, 1.5, count)
        values = [
            [float(np.clip(round(value + random.normal(0, 1)), 1, 10)) for _ in range(random.choice([1, 2], p=[0.2, 0.8]))]
            for value in level
        ]
        sums, counts = np.array([sum(v) for v in values]), np.array([float(len(v)) for v in values])
        result = stats.bootstrap(
            (sums, counts),
            lambda s, n, axis=-1: s.sum(axis=axis) / n.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=200_000,
            batch=10_000,
            method="percentile",
            random_state=seed,
        )
        found.append(
            {
                "values": values,
                "mean": float(sums.sum() / counts.sum()),
                "interval": [float(end) for end in result.confidence_interval],
                "standard_error": float(result.standard_error),
            }
        )
    return found


def lengths() -> list[dict]:
    found = []
    for seed, count, effect in [(0, 40, 1.5), (1, 160, 0.0), (2, 160, 4.0)]:
        random = np.random.default_rng(seed)
        first, second = random.integers(20, 900, count), random.integers(20, 600, count)
        difference = (first - second).astype(float)
        x = np.tanh(difference / difference.std(ddof=1))
        chance = 1 / (1 + np.exp(-(0.3 + effect * x)))
        result = np.where(random.random(count) < 0.2, 0.5, (random.random(count) < chance).astype(float))
        # a tie is half a win and half a loss
        rows = np.concatenate([x, x])[:, None]
        labels = np.concatenate([np.ones(count), np.zeros(count)])
        weights = np.concatenate([result, 1 - result])
        model = LogisticRegression(C=1.0, tol=1e-14, max_iter=10_000).fit(rows, labels, sample_weight=weights)
        found.append(
            {
                "characters": [[int(a), int(b)] for a, b in zip(first, second)],
                "results": result.tolist(),
                "rate": float(1 / (1 + np.exp(-model.intercept_[0]))),
            }
        )
    return found


def main() -> None:
    folder = Path(sys.argv[1]) / "fastchat/llm_judge"
    OUT.mkdir(exist_ok=True)
    verdicts, prompts = judged(folder)
    # not by write_json, which would close up the brackets of the texts
    found = {"verdicts": verdicts, "errors": ERRORS, "prompts": prompts, "shares": shares(folder)}
    (OUT / "fastchat.json").write_text(json.dumps(found, indent=1) + "\n")
    write_json(OUT / "statistics.json", {"wilson": wilson(), "means": means(), "lengths": lengths()})


if __name__ == "__main__":
    main()
