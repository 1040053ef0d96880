"""Runs lm-evaluation-harness 0.4.13 on local files, and compares `simmer eval` with it on the same files.

    python tests/reference/harness.py run MODEL DATA OUT [--tasks a,b] [--limit N] [--fewshot K] [--dtype D]    runs the harness
    python tests/reference/harness.py compare OUT ANSWERS                          compares simmer's answers
    python tests/reference/harness.py goldens [TASK ...]                           generates tests/goldens/eval

humaneval and mbpp run programs with the metric `code_eval` of Hugging Face's `evaluate`: set HF_ALLOW_CODE_EVAL=1, and
CODE_EVAL to the folder metrics/code_eval of that repository. This runs them without a sandbox.

OUT is one file if its name ends in .json, else a folder with a TASK.json for each task; `compare` needs the folder. The
word `run` may be omitted. ANSWERS is the folder of a model that `simmer eval --out` wrote. All commands need
`pip install lm-eval==0.4.13` in addition to requirements.txt.

The tasks are the harness's own: prompts, choices, delimiters, shots, filters and metrics come from its YAML files. Only
the rows come from local files (FILES, in the format `{question, choices, label}`), with their fields renamed for the
harness. Its standard errors are those of means, not bootstrapped. An answer has the row's number, its gold index (or
target) and its scores. For each choice it has the log-likelihood, whether greedy decoding gives it, and the SHA-256 of
context + NUL + continuation as sent to the model (of prompt + NUL if text is generated). MMLU uses five shots, the first
ones of dev, unless --fewshot is given; gsm8k draws its shots from train with the harness's seed.

Where the local files differ from the harness's data sets, they are used as they are, so that both programs see the same:
- HellaSwag's rows are already joined and cleaned, so `process_docs` is not applied. A second pass would change 2 questions
  and 12 endings of 10,042 rows, which have brackets other than titles and steps. The last words of a question start with
  a small letter ("he"); the harness has a capital.
- SIQA's context is part of the question. It is split at the first space, because the harness's template joins the two
  with one.
- BoolQ has the 2,817 rows whose passages are public, with spaces around their tokens.
- TruthfulQA's choices are built from the CSV (mc1: the best answer, then all incorrect ones; mc2: all correct ones, then
  all incorrect ones), as in its authors' code, but without the full stop that this code adds at each end. The harness
  reads them from the Hub's multiple_choice config, with which this could not be compared.
- CrowS-Pairs has the 1,508 original pairs; the harness reads a revised set.
- TruthfulQA's generated answers (truthfulqa_gen) are compared with the CSV's answers, split at semicolons.
- PIQA, WinoGrande, ARC, OpenBookQA, MMLU, GSM8K and NQ-open only need other field names.
"""

import argparse
import csv
import hashlib
import json
import os
import sys
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import datasets
import evaluate
import lm_eval
import pandas
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, postprocess_generated_text
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.tasks.hendrycks_math import utils as hendrycks_math
from lm_eval.tasks.truthfulqa import utils as truthfulqa

if "CODE_EVAL" in os.environ:
    load_metric = evaluate.load
    evaluate.load = lambda name: load_metric(os.environ["CODE_EVAL"] if name == "code_eval" else name)

TASKS = Path(lm_eval.__file__).parent / "tasks"
YAML = {
    "piqa": "piqa/piqa.yaml",
    "social_iqa": "siqa/siqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
    "crows_pairs": "crows_pairs/crows_pairs_english.yaml",
    "gsm8k_cot": "gsm8k/gsm8k-cot.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
    "gsm8k_cot_self_consistency": "gsm8k/gsm8k-cot-self-consistency.yaml",
    "truthfulqa_gen": "truthfulqa/truthfulqa_gen.yaml",
    "realtoxicityprompts": "realtoxicityprompts/realtoxicityprompts.yaml",
    "humaneval": "humaneval/humaneval.yaml",
    "humaneval_instruct": "humaneval/humaneval_instruct.yaml",
    "mbpp": "mbpp/mbpp.yaml",
    "mbpp_instruct": "mbpp/mbpp_instruct.yaml",
    "nq_open": "nq_open/nq_open.yaml",
    "triviaqa": "triviaqa/default.yaml",
    "race": "race/race.yaml",
    "hendrycks_math": "hendrycks_math/hendrycks_math_algebra.yaml",
}
# BIG-bench Hard has a YAML file for each of its tasks.
BBH = "bbh_"
BBH_YAML = "bbh/cot_fewshot/{}.yaml"
FILES = {
    "piqa": "mc/piqa_valid.jsonl",
    "social_iqa": "mc/social_i_qa.jsonl",
    "hellaswag": "mc/hellaswag_val.jsonl",
    "winogrande": "mc/winogrande.jsonl",
    "arc_easy": "mc/ARC-Easy.jsonl",
    "arc_challenge": "mc/ARC-Challenge.jsonl",
    "openbookqa": "mc/openbookqa.jsonl",
    "boolq": "mc/boolq.jsonl",
    "truthfulqa_mc1": "TruthfulQA.csv",
    "truthfulqa_mc2": "TruthfulQA.csv",
    "crows_pairs": "crows_pairs_anonymized.csv",
    "gsm8k_cot": "gsm8k/test.jsonl",
    "gsm8k": "gsm8k/test.jsonl",
    "gsm8k_cot_self_consistency": "gsm8k/test.jsonl",
    "truthfulqa_gen": "TruthfulQA.csv",
    "realtoxicityprompts": "real-toxicity-prompts/prompts.jsonl",
    "humaneval": "HumanEval.jsonl",
    "humaneval_instruct": "HumanEval.jsonl",
    "mbpp": "mbpp.jsonl",
    "mbpp_instruct": "mbpp.jsonl",
    "nq_open": "NQ-open.dev.jsonl",
    "triviaqa": "triviaqa/validation.jsonl",
    "race": "race/high/test.jsonl",
    "hendrycks_math": "hendrycks_math/algebra/test.jsonl",
}
# Largest allowed difference of a log-likelihood (relative to it if that is above 1): f32 sums in another order.
TOLERANCE = 1e-3
MMLU = "mmlu_"
MMLU_SHOTS = 5
# the harness's default seed
SHOTS_SEED = 1234


def rows_of(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            return list(csv.DictReader(file))
        return [json.loads(line) for line in file if line.strip()]


def labelled(row: dict) -> dict:
    letters = "ABCDEFGH"[: len(row["choices"])]
    return {"choices": {"text": row["choices"], "label": list(letters)}, "answerKey": letters[row["label"]]}


def parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def truthful(row: dict) -> dict:
    wrong = parts(row["Incorrect Answers"])
    right = parts(row["Correct Answers"])
    return {
        "question": row["Question"],
        "mc1_targets": {"choices": [row["Best Answer"].strip(), *wrong], "labels": [1] + [0] * len(wrong)},
        "mc2_targets": {"choices": right + wrong, "labels": [1] * len(right) + [0] * len(wrong)},
    }


def as_the_harness_wants(task: str, row: dict) -> dict:
    match task:
        case "piqa":
            return {"goal": row["goal"], "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["label"]}
        case "social_iqa":
            answers = dict(zip(["answerA", "answerB", "answerC"], row["choices"]))
            context, question = row["question"].split(" ", 1)
            return {"context": context, "question": question, **answers, "label": str(row["label"] + 1)}
        case "hellaswag":
            return {"query": row["query"], "choices": row["choices"], "label": row["label"]}
        case "winogrande":
            one, two = row["choices"]
            return {"sentence": row["sentence"], "option1": one, "option2": two, "answer": str(row["label"] + 1)}
        case "arc_easy" | "arc_challenge":
            return {"question": row["question"], **labelled(row)}
        case "openbookqa":
            return {"question_stem": row["question"], **labelled(row)}
        case "boolq":
            return {"passage": row["passage"], "question": row["question"], "label": int(row["answer"])}
        case "truthfulqa_mc1" | "truthfulqa_mc2":
            return truthful(row)
        case "truthfulqa_gen":
            answers = {name.lower().replace(" ", "_"): parts(row[name]) for name in ("Correct Answers", "Incorrect Answers")}
            return truthfulqa.preprocess_function({"question": row["Question"], **answers})
        case "crows_pairs":
            return {"sent_more": row["sent_more"], "sent_less": row["sent_less"], "bias_type": row["bias_type"]}
        case "hendrycks_math":
            # what `process_docs` does, without the data set's cache
            answer = hendrycks_math.remove_boxed(hendrycks_math.last_boxed_only_string(row["solution"]))
            return {**row, "answer": answer}
        case _:
            return row


def mmlu_rows(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [{"question": q, "choices": choices, "answer": "ABCD".index(a)} for q, *choices, a in rows]


def load(task: str, data: Path, limit: int | None, shots: int | None = None, hub: bool = False) -> ConfigurableTask:
    if hub:
        config, splits = of_hub(task, data)
    elif task.startswith(MMLU):
        subject = task.removeprefix(MMLU)
        config = load_yaml(TASKS / f"mmlu/default/{task}.yaml")
        splits = {"test": mmlu_rows(data / f"mmlu/test/{subject}_test.csv")[:limit]}
        splits["dev"] = mmlu_rows(data / f"mmlu/dev/{subject}_dev.csv")
        config["num_fewshot"] = MMLU_SHOTS
    else:
        name = task.removeprefix(BBH)
        config = load_yaml(TASKS / (BBH_YAML.format(name) if task.startswith(BBH) else YAML[task]))
        if task.startswith(BBH):
            rows = json.loads((data / f"bbh/{name}.json").read_text(encoding="utf-8"))["examples"][:limit]
        else:
            rows = [as_the_harness_wants(task, row) for row in rows_of(data / FILES[task])][:limit]
        splits = {config.get("test_split") or config["validation_split"]: rows}
        if task == "gsm8k":
            splits["train"] = rows_of(data / "gsm8k/train.jsonl")
        for unused in ("training_split", "validation_split", "test_split"):
            if config.get(unused) not in splits:
                config[unused] = None
    if shots is not None and (hub or config.get("num_fewshot")):
        config["num_fewshot"] = shots
    if task in ("mbpp", "mbpp_instruct"):
        splits["test"] = [row for row in rows if 10 < row["task_id"] <= 510]
    if task == "realtoxicityprompts":
        # the scores need a web service; what is sent and generated does not
        config.pop("process_results")
        config["metric_list"] = [{"metric": "bypass"}]
    if task in ("hellaswag", "hendrycks_math", "truthfulqa_gen") and not hub:
        config.pop("process_docs")
    tables = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    config.update(task=task, custom_dataset=lambda **_: datasets.DatasetDict(tables))
    for key in ("tag", "task_alias", "group"):
        config.pop(key, None)
    loaded = ConfigurableTask(config=config)
    loaded.set_fewshot_seed(SHOTS_SEED)
    return loaded


def of_hub(task: str, data: Path) -> tuple[dict, dict]:
    """A task's YAML file, and rows in the columns of the hub, which the YAML file reads."""
    from hub_rows import HUB

    name, _, examples, _ = HUB[task]
    config = load_yaml(TASKS / (f"mmlu/default/{task}.yaml" if task.startswith(MMLU) else YAML[task]))
    files = {config.get("test_split") or config["validation_split"]: name}
    if examples:
        files[config.get("fewshot_split") or config["training_split"]] = examples
    splits = {split: pandas.read_parquet(data / f"{file}.parquet") for split, file in files.items()}
    for unused in ("training_split", "validation_split", "test_split"):
        if config.get(unused) not in splits:
            config[unused] = None
    return config, {split: datasets.Dataset.from_pandas(rows).to_list() for split, rows in splits.items()}


def digest(context: str, continuation: str = "") -> str:
    return hashlib.sha256(f"{context}\0{continuation}".encode()).hexdigest()


def answers_of(task: ConfigurableTask, samples: list[dict]) -> list[dict]:
    """The answers in the order of rows. Tasks with several filters have one sample per filter."""
    found: dict[int, dict] = {}
    for sample in samples:
        answer = found.setdefault(sample["doc_id"], {"row": sample["doc_id"]})
        doc, pairs = sample["doc"], [list(pair) for pair in sample["arguments"]]
        if task.OUTPUT_TYPE == "multiple_choice":
            answer["gold"] = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
            if "mc2_targets" in doc and task.config.process_results:
                answer["labels"] = doc["mc2_targets"]["labels"]
            answer["log_likelihoods"] = [float(response[0][0]) for response in sample["resps"]]
            answer["greedy"] = [bool(response[0][1]) for response in sample["resps"]]
            answer["sha256"] = [digest(*pair) for pair in pairs]
            answer["pairs"] = [f"{context}\0{continuation}" for context, continuation in pairs]
            answer["scores"] = {name: float(sample[name]) for name in sample["metrics"]}
        else:
            answer["target"] = task.doc_to_target(doc)
            answer["prompt"], answer["text"] = pairs[0][0], sample["resps"][0][0]
            if isinstance(answer["text"], list):
                answer["text"] = answer["text"][0]
            answer["sha256"] = digest(answer["prompt"])
            scores = answer.setdefault("scores", {})
            if "exact_match" in sample:
                answer.setdefault("found", {})[sample["filter"]] = sample["filtered_resps"][0]
                scores[sample["filter"]] = float(sample["exact_match"])
            else:
                metrics = (name for name in sample["metrics"] if name != "bypass")
                scores.update({name: float(sample[name]) for name in metrics})
    return [found[row] for row in sorted(found)]


def ask(
    model: HFLM,
    task: str,
    data: Path,
    limit: int | None = None,
    shots: int | None = None,
    generation: dict | None = None,
    hub: bool = False,
    chat: bool = False,
) -> dict:
    loaded = load(task, data, limit, shots, hub)
    if loaded.OUTPUT_TYPE == "generate_until":
        loaded.config.generation_kwargs.update(generation or {})
        if not loaded.config.generation_kwargs.get("do_sample"):
            loaded.config.generation_kwargs.pop("temperature", None)
    begin = time.perf_counter()
    # with any number of iterations above 0, the harness computes the standard errors of means
    settings = {"log_samples": True, "bootstrap_iters": 1, "confirm_run_unsafe_code": True}
    # few-shot examples are messages, as by default in its command line
    in_chat = {"apply_chat_template": True, "fewshot_as_multiturn": True} if chat else {}
    results = lm_eval.evaluate(model, {task: loaded}, **settings, **in_chat)
    seconds = time.perf_counter() - begin
    kept = {name: float(value) for name, value in results["results"][task].items() if isinstance(value, float)}
    answers = answers_of(loaded, results["samples"][task])
    about = {"task": task, "rows": len(answers), "shots": loaded.config.num_fewshot or 0}
    return {**about, "seconds": round(seconds, 1), "results": kept, "answers": answers}


def without(found: dict, *names: str) -> dict:
    answers = [{name: value for name, value in answer.items() if name not in names} for answer in found["answers"]]
    return {**found, "answers": answers}


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    model = HFLM(pretrained=str(args.model), dtype=args.dtype, device="cpu", batch_size=args.batch)
    whole = {}
    for task in args.tasks.split(","):
        whole[task] = without(ask(model, task, args.data, args.limit, args.fewshot), "pairs", "prompt")
        if args.out.suffix == ".json":
            args.out.write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
        else:
            args.out.mkdir(parents=True, exist_ok=True)
            text = json.dumps(whole[task], ensure_ascii=False)
            (args.out / f"{task}.json").write_text(text, encoding="utf-8")
        print(task, whole[task]["seconds"], "s", json.dumps(whole[task]["results"]), flush=True)


def compare(args: argparse.Namespace) -> None:
    """Compares answers row by row. simmer ran each subject of MMLU as a task `mmlu` of its own, with its own folder."""
    failed, compared = False, 0
    for path in sorted(args.out.glob("*.json")):
        expected = json.loads(path.read_text(encoding="utf-8"))
        task = expected["task"]
        folder = args.answers / task if task.startswith(MMLU) else args.answers
        file = folder / ("mmlu.jsonl" if task.startswith(MMLU) else f"{task}.jsonl")
        if not file.exists():
            print(f"{task}: skipped, {file} is missing")
            continue
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[1:]]
        ours = {line["row"]: line for line in lines}
        largest, texts, both = 0.0, 0, 0
        for answer in expected["answers"]:
            mine = ours.get(answer["row"])
            if mine is None:
                continue
            both += 1
            if "text" in answer:
                texts += mine["texts"][0] == answer["text"]
                continue
            for a, b in zip(mine["log_likelihoods"], answer["log_likelihoods"], strict=True):
                largest = max(largest, abs(a - b) / max(1.0, abs(b)))
        good = texts == both if "text" in expected["answers"][0] else largest <= TOLERANCE
        failed |= not good or both == 0
        compared += 1
        what = f"{texts} texts equal" if texts else f"largest difference {largest:.2e}"
        print(f"{task}: {both} rows, {what}{'' if good else ': FAILED'}")
    if not compared:
        sys.exit(f"nothing to compare: no task of {args.out} has answers in {args.answers}")
    sys.exit(failed)


GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
TINY = GOLDENS.parents[1] / "data" / "tiny-base"
# The tiny models accept only few tokens: long prompts are truncated at the start, and this is compared too.
SHORT = 24
FEW = 2
# The tasks in eval/MODEL.json.
FIRST = [*(task for task in list(YAML)[:12]), "mmlu_anatomy"]
BBH_TASKS = ["bbh_boolean_expressions", "bbh_word_sorting"]
# The tasks in eval/tied-gqa-chat.
CHAT = ["humaneval", "humaneval_instruct", "mbpp", "mbpp_instruct", "gsm8k_cot", "truthfulqa_gen", "triviaqa", *BBH_TASKS]


def write_rows(folder: Path) -> None:
    """Writes the rows of harness_rows.py in the formats of the evaluation sets."""
    from harness_rows import ANATOMY, CROWS, GSM8K, ROWS, TRUTHFUL

    for name, rows in {**ROWS, "gsm8k/test.jsonl": GSM8K}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    for name, rows in {"TruthfulQA.csv": TRUTHFUL, "crows_pairs_anonymized.csv": CROWS}.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    for split, rows in {"dev": ANATOMY[:5], "test": ANATOMY[5:]}.items():
        path = folder / "mmlu" / split / f"anatomy_{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def write_hub_rows(folder: Path) -> None:
    """Writes the rows of harness_rows.py that have the columns of the hub."""
    from harness_rows import HUB_ROWS

    for name, rows in HUB_ROWS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("bbh/"):
            text = json.dumps({"canary": "", "examples": rows}, ensure_ascii=False) + "\n"
        else:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")


def judged(task: ConfigurableTask, gold: str | list[str], text: str) -> dict:
    """The answer that the task extracts from a generated text, truncated at its stop sequences, and its score."""
    # a string that occurs in no text stands for the model's EOS token
    stops = handle_stop_sequences(list(task.config.generation_kwargs["until"]), eos="<eos>")
    cut = postprocess_generated_text(text, stops, None)
    # the fields that hold the right answer: GSM8K's and NaturalQuestions', TriviaQA's, MATH's
    aliases = {"aliases": gold} if task.config.task == "triviaqa" else gold
    doc = {"question": "", "answer": aliases, "solution": gold}
    asked = Instance("generate_until", doc, ("", {}), 0, resps=[cut])
    found, scores = {}, {}
    for filters in task._filters:
        filters.apply([asked])
        name = filters.name
        found[name] = asked.filtered_resps[name]
        scores[name] = float(task.process_results(doc, [found[name]])["exact_match"])
    return {"gold": gold, "text": text, "cut": cut, "found": found, "scores": scores}


def findings(folder: Path, tasks: list[str]) -> None:
    """Writes eval/found/TASK.json: the answers extracted from texts that the tiny models do not generate."""
    from harness_rows import TEXTS

    (folder / "found").mkdir(exist_ok=True)
    for name, texts in TEXTS.items():
        if tasks and name not in tasks:
            continue
        task = load(name, folder / "rows", None, FEW)
        found = ",\n".join(json.dumps(judged(task, *pair), ensure_ascii=False) for pair in texts)
        (folder / "found" / f"{name}.json").write_text(f"[\n{found}\n]\n", encoding="utf-8")


def more_findings(folder: Path, tasks: list[str]) -> None:
    """Writes eval/found/TASK.json of the tasks whose answers are programs, are compared by similarity, or vote."""
    from harness_rows import PROGRAMS, SAID, VOTES

    def wanted(name: str) -> bool:
        return not tasks or name in tasks

    def write(name: str, found: list[dict]) -> None:
        text = ",\n".join(json.dumps(one, ensure_ascii=False) for one in found)
        (folder / "found" / f"{name}.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")

    def scored(name: str, pairs: list[tuple[int, str]]) -> list[dict]:
        task = load(name, folder / "rows", None, FEW)
        docs = list(task.eval_docs)
        found = []
        for row, text in pairs:
            asked = Instance("generate_until", docs[row], ("", {}), 0, resps=[text])
            for filters in task._filters:
                filters.apply([asked])
                scores = task.process_results(docs[row], [asked.filtered_resps[filters.name]])
            found.append({"row": row, "text": text, "scores": {key: float(value) for key, value in scores.items()}})
        return found

    for name, pairs in [*PROGRAMS.items(), ("truthfulqa_gen", SAID)]:
        if wanted(name):
            write(name, scored(name, pairs))
    name = "gsm8k_cot_self_consistency"
    if wanted(name):
        task, found = load(name, folder / "rows", None, FEW), []
        for gold, texts in VOTES:
            # the harness wants at least eight
            resps = texts * (8 if len(texts) < 8 else 1)
            doc = {"question": "", "answer": f"#### {gold}"}
            asked = Instance("generate_until", doc, ("", {}), 0, resps=resps)
            scores = {}
            for filters in task._filters:
                filters.apply([asked])
                got = asked.filtered_resps[filters.name]
                scores[filters.name] = float(task.process_results(doc, [got])["exact_match"])
            found.append({"gold": gold, "texts": resps, "scores": scores})
        write(name, found)


def brief(found: dict, texts: bool) -> dict:
    """The parts kept in eval/MODEL.json: log-likelihoods or generated texts, and the prompts if `texts` is set."""
    asked = () if texts else ("pairs", "prompt")
    found = without(found, "gold", "labels", "target", "greedy", "sha256", "found", *asked)
    for answer in found["answers"]:
        if "log_likelihoods" in answer:
            answer.pop("scores")
    results = {name: value for name, value in found["results"].items() if "_stderr" not in name}
    return {"results": results, "answers": found["answers"]}


def lines(found: dict) -> str:
    """JSON with one answer per line."""
    head = {name: value for name, value in found.items() if name not in ("answers", "seconds")}
    answers = ",\n".join(json.dumps(answer, ensure_ascii=False) for answer in found["answers"])
    return json.dumps(head, ensure_ascii=False)[:-1] + f', "answers": [\n{answers}\n]}}\n'


def rounded(found: dict) -> dict:
    for answer in found["answers"]:
        if "log_likelihoods" in answer:
            answer["log_likelihoods"] = [round(value, 5) for value in answer["log_likelihoods"]]
    return found


def hub_goldens(folder: Path, tasks: list[str], short: dict) -> None:
    """Writes eval/hub, rows in Parquet as the hub has them, and eval/tied-gqa-hub/TASK.json."""
    from hub_rows import HUB

    model = HFLM(pretrained=str(GOLDENS / "tied-gqa"), dtype="float32", device="cpu", batch_size=1)
    (folder / "tied-gqa-hub").mkdir(exist_ok=True)
    for task, (name, rows, examples, more) in HUB.items():
        for file, content in ((name, rows), (examples, more)):
            if file:
                path = folder / "hub" / f"{file}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                datasets.Dataset.from_list(content).to_parquet(path)
        if tasks and task not in tasks:
            continue
        answers = ask(model, task, folder / "hub", shots=FEW if examples else None, generation=short, hub=True)
        text = lines(rounded(without(answers, "pairs", "prompt")))
        (folder / "tied-gqa-hub" / f"{task}.json").write_text(text, encoding="utf-8")


def chat_goldens(folder: Path, tasks: list[str], short: dict) -> None:
    """Writes eval/tied-gqa-chat/TASK.json: generation tasks in the model's chat template."""
    model = HFLM(pretrained=str(GOLDENS / "tied-gqa"), dtype="float32", device="cpu", batch_size=1)
    (folder / "tied-gqa-chat").mkdir(exist_ok=True)
    for task in CHAT:
        if not tasks or task in tasks:
            answers = ask(model, task, folder / "rows", shots=FEW, generation=short, chat=True)
            text = lines(rounded(without(answers, "pairs", "prompt")))
            (folder / "tied-gqa-chat" / f"{task}.json").write_text(text, encoding="utf-8")


def goldens(tasks: list[str]) -> None:
    """Writes eval/MODEL.json from eval/data, eval/hub with its answers, eval/MODEL/TASK.json from eval/rows with few shots, and eval/found.

    All generated answers are short. With names of tasks, only theirs are written, and no eval/MODEL.json.
    """
    torch.set_num_threads(1)
    folder = GOLDENS / "eval"
    write_rows(folder / "data")
    write_hub_rows(folder / "rows")
    findings(folder, tasks)
    more_findings(folder, tasks)
    short = {"max_gen_toks": SHORT, "do_sample": False}
    hub_goldens(folder, tasks, short)
    chat_goldens(folder, tasks, short)
    for path in [TINY, GOLDENS / "tied-gqa", GOLDENS / "untied-mha"]:
        model = HFLM(pretrained=str(path), dtype="float32", device="cpu", batch_size=1)
        found = {}
        for task in [] if tasks else FIRST:
            found[task] = brief(ask(model, task, folder / "data", generation=short), path == TINY)
        if not tasks:
            text = json.dumps(found, ensure_ascii=False, indent=1)
            (folder / f"{path.name}.json").write_text(text + "\n", encoding="utf-8")
        if path == TINY:
            continue
        (folder / path.name).mkdir(exist_ok=True)
        for task in tasks or [*YAML, "mmlu_anatomy", *BBH_TASKS]:
            answers = ask(model, task, folder / "rows", shots=FEW, generation=short)
            text = lines(rounded(without(answers, "pairs", "prompt")))
            (folder / path.name / f"{task}.json").write_text(text, encoding="utf-8")


def main() -> None:
    if sys.argv[1:2] == ["goldens"]:
        return goldens(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    if sys.argv[1:2] == ["compare"]:
        parser.add_argument("command")
        parser.add_argument("out", type=Path)
        parser.add_argument("answers", type=Path)
        return compare(parser.parse_args())
    arguments = sys.argv[2:] if sys.argv[1:2] == ["run"] else sys.argv[1:]
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", default=",".join(YAML))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--fewshot", type=int, help="number of shots, for tasks that have shots")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    run(parser.parse_args(arguments))


if __name__ == "__main__":
    main()
