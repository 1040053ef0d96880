"""Tokens and labels by the original code of Alpaca, alpaca-lora, Vicuna, Koala, Baize, GPT4All and ChatDoctor.

    python tests/reference/seed_systems.py goldens CLONES
    python tests/reference/seed_systems.py compare CLONES EXAMPLES TOKENIZER MAX_TOKENS ROWS...

CLONES is a folder with git clones of the repositories in SOURCES; their functions are extracted from their files and run.
`goldens` writes tests/goldens/seed_systems, with the tokenizer tests/goldens/tokenizers/llama.model. `compare` compares the
tokens and labels of the rows of files with simmer's, shows the first differences, and counts them. EXAMPLES is simmer's
example program of that name (`cargo build --release -p simmer-data --example examples`), TOKENIZER a tokenizer.model.

Needs Python 3.11 with transformers 4.28.1, tokenizers 0.13.3, sentencepiece 0.1.99 and protobuf 3.20.3 (the versions that
these systems used), and any torch.
"""

import ast
import copy
import dataclasses
import itertools
import json
import logging
import os
import os.path
import subprocess
import sys
import tempfile
import types
import typing
from pathlib import Path

import numpy
import torch
import transformers
from transformers import LlamaTokenizer

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/goldens/seed_systems"
IGNORE = -100

# Repository and commit of each: the latest, or the one with which the system was trained.
SOURCES = {
    "stanford_alpaca": "761dc5bfbdeeffa89b8bff5d038781a4055f796a",
    "alpaca-lora": "8bb8579e403dc78e37fe81ffbb253c413007323f",
    "FastChat": "ccc1b51aeed01b945f91ffd52a8c422ca4c1f0bd",
    "EasyLM": "fe5b2c354e25d697fce7cd225e23bbbe72570da3",
    "baize-chatbot": "4fae6c4e550f087958c1f60746f0e6290e6b9f02",
    "gpt4all": "8a94a8c06822b27d0b0eaf7cbbebdc0d83e9f30c",
    "ChatDoctor": "e77bd7ebafbffb6d82be3410cd0d4ebebe75a516",
}


class Originals:
    """The systems' functions, for one tokenizer.model and a limit of tokens. Each function returns ids and labels of one
    row, without padding."""

    def __init__(self, clones: Path, model: Path, max_tokens: int):
        self.clones = clones
        self.max_tokens = max_tokens
        self.folder = tempfile.TemporaryDirectory()
        folder = Path(self.folder.name)
        (folder / "tokenizer.model").write_bytes(model.read_bytes())
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')

    def tokenizer(self, **options):
        return LlamaTokenizer.from_pretrained(self.folder.name, **options)

    def source(self, repository: str, path: str) -> str:
        name = f"{SOURCES[repository]}:{path}"
        return subprocess.run(
            ["git", "-C", self.clones / repository, "show", name], check=True, capture_output=True, text=True
        ).stdout

    def take(self, repository: str, path: str, names: list[str], **namespace) -> dict:
        """Extracts functions, classes and constants of a file, at any level."""
        tree = ast.parse(self.source(repository, path))
        nodes = []
        for node in ast.walk(tree):
            targets = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
            if getattr(node, "name", None) in names or set(targets) & set(names):
                nodes.append(node)
        namespace = {**vars(typing), "torch": torch, "transformers": transformers, "copy": copy, **namespace}
        exec(compile(ast.Module(body=nodes, type_ignores=[]), path, "exec"), namespace)
        return namespace

    def stanford(self, repository: str):
        """train.py of stanford_alpaca, and of ChatDoctor, which is a copy of it."""
        tokenizer = self.tokenizer(model_max_length=self.max_tokens, padding_side="right")
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        names = ["IGNORE_INDEX", "PROMPT_DICT", "_tokenize_fn", "preprocess", "SupervisedDataset"]
        utils = types.SimpleNamespace(jload=lambda rows: rows)
        code = self.take(repository, "train.py", names, Dataset=object, utils=utils, logging=logging)

        def one(row):
            data = code["SupervisedDataset"]([row], tokenizer)
            return data.input_ids[0].tolist(), data.labels[0].tolist()

        return one

    def lora_tokenizer(self):
        tokenizer = self.tokenizer()
        tokenizer.pad_token_id = 0
        tokenizer.padding_side = "left"
        return tokenizer

    def alpaca_lora(self, train_on_inputs: bool):
        templates = Path(self.folder.name) / "templates"
        templates.mkdir(exist_ok=True)
        (templates / "alpaca.json").write_text(self.source("alpaca-lora", "templates/alpaca.json"))
        code = self.take("alpaca-lora", "utils/prompter.py", ["Prompter"], json=json, osp=os.path)
        here = os.getcwd()
        os.chdir(self.folder.name)
        prompter = code["Prompter"]("alpaca")
        os.chdir(here)
        code = self.take(
            "alpaca-lora", "finetune.py", ["tokenize", "generate_and_tokenize_prompt"], prompter=prompter,
            tokenizer=self.lora_tokenizer(), cutoff_len=self.max_tokens, train_on_inputs=train_on_inputs,
            add_eos_token=False,
        )
        return lambda row: unpadded(code["generate_and_tokenize_prompt"](row))

    def chatdoctor_lora(self, train_on_inputs: bool):
        code = self.take(
            "ChatDoctor", "train_lora.py", ["tokenize", "generate_and_tokenize_prompt", "generate_prompt"],
            tokenizer=self.lora_tokenizer(), cutoff_len=self.max_tokens, train_on_inputs=train_on_inputs,
        )
        return lambda row: unpadded(code["generate_and_tokenize_prompt"](row))

    def vicuna(self):
        tokenizer = self.tokenizer(model_max_length=self.max_tokens, padding_side="right")
        tokenizer.pad_token = tokenizer.unk_token
        conversation = types.ModuleType("conversation")
        # dataclasses look up their module in sys.modules
        sys.modules["conversation"] = conversation
        exec(self.source("FastChat", "fastchat/conversation.py"), vars(conversation))
        code = self.take(
            "FastChat", "fastchat/train/train.py", ["IGNORE_TOKEN_ID", "preprocess"],
            LabelSmoother=types.SimpleNamespace(ignore_index=IGNORE), rank0_print=lambda *_: None,
            SeparatorStyle=conversation.SeparatorStyle,
            get_default_conv_template=conversation.get_default_conv_template,
        )

        def one(row):
            data = code["preprocess"]([copy.deepcopy(row["conversations"])], tokenizer)
            return unpadded({key: value[0].tolist() for key, value in data.items()})

        return one

    def koala(self):
        """EasyLM's text processor with the prompts of its docs/koala.md; each prompt and each answer is one field."""
        config = types.SimpleNamespace(
            fields_from_example="fields", fields="", subfield_separator=" ", add_bos_token=True, add_eos_token=True,
            prepend_text="", base64_token_dtype="i4",
        )
        mlxu = types.SimpleNamespace(config_dict=types.SimpleNamespace, update_config_dict=lambda _, updates: updates)
        code = self.take("EasyLM", "EasyLM/data.py", ["TextProcessor"], mlxu=mlxu, np=numpy)
        processor = code["TextProcessor"](config, self.tokenizer())

        def one(row):
            example, fields = {}, []
            for number, (question, answer) in enumerate(pairs(row)):
                begin = "" if number else "BEGINNING OF CONVERSATION: "
                example |= {f"q{number}": f"{begin}USER: {question} GPT:", f"a{number}": answer}
                fields += [f"[q{number}]", f"a{number}", "<|eos|>"]
            example["fields"] = ",".join(fields[:-1])
            tokens, mask = processor(example)
            labels = [token if trained else IGNORE for token, trained in zip(tokens, mask)]
            return tokens[: self.max_tokens], labels[: self.max_tokens]

        return one

    def baize(self):
        tokenizer = self.tokenizer(add_eos_token=True)
        tokenizer.pad_token_id = 0
        names = ["generate_prompt", "tokenize", "generate_and_tokenize_prompt"]
        code = self.take("baize-chatbot", "finetune.py", names, tokenizer=tokenizer, CUTOFF_LEN=self.max_tokens)
        collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)

        def one(row):
            data = collator([code["generate_and_tokenize_prompt"]({"input": baize_text(row)})])
            return unpadded({key: value[0].tolist() for key, value in data.items()})

        return one

    def gpt4all(self):
        tokenizer = self.tokenizer(model_max_length=self.max_tokens)
        tokenizer.pad_token = tokenizer.eos_token
        code = self.take("gpt4all", "data.py", ["tokenize_inputs"])
        config = {"max_length": self.max_tokens}

        def one(row):
            batch = {"prompt": [row["prompt"]], "response": [row["response"]]}
            data = code["tokenize_inputs"](config, tokenizer, batch)
            ids, labels = data["input_ids"][0].tolist(), data["labels"][0].tolist()
            # Rows are padded with the EOS token; only the real one has a label.
            length = max(index for index, label in enumerate(labels) if label != IGNORE) + 1
            return ids[:length], labels[:length]

        return one


def unpadded(data: dict) -> tuple[list, list]:
    mask = data["attention_mask"]
    keep = [index for index, real in enumerate(mask) if real]
    return [data["input_ids"][i] for i in keep], [data["labels"][i] for i in keep]


def pairs(row: dict) -> list[tuple[str, str]]:
    values = [turn["value"] for turn in row["conversations"]]
    return list(zip(values[::2], values[1::2]))


def baize_text(row: dict) -> str:
    """A conversation as written by Baize's preprocess.py."""
    turns = [f"[|Human|] {question}\n[|AI|] {answer}\n" for question, answer in pairs(row)]
    return "The conversation between human and AI assistant.\n" + "".join(turns) + "[|Human|] "


@dataclasses.dataclass
class System:
    """simmer's settings for a system, the kind of its rows, and its original function."""

    template: str
    train_on: str
    rows: str
    original: typing.Callable


SYSTEMS = {
    "alpaca": System("alpaca", "answers", "instruction", lambda o: o.stanford("stanford_alpaca")),
    "alpaca-lora": System("alpaca-lora", "everything", "instruction", lambda o: o.alpaca_lora(True)),
    "alpaca-lora-answers": System("alpaca-lora", "answers", "instruction", lambda o: o.alpaca_lora(False)),
    "vicuna-v1.1": System("vicuna-v1.1", "answers", "conversations", Originals.vicuna),
    "koala": System("koala", "answers", "conversations", Originals.koala),
    "baize": System("baize", "everything", "conversations", Originals.baize),
    "gpt4all": System("gpt4all", "answers", "prompt", Originals.gpt4all),
    "chatdoctor": System("alpaca", "answers", "instruction", lambda o: o.stanford("ChatDoctor")),
    "chatdoctor-lora": System("chatdoctor", "everything", "instruction", lambda o: o.chatdoctor_lora(True)),
    "chatdoctor-lora-answers": System("chatdoctor", "answers", "instruction", lambda o: o.chatdoctor_lora(False)),
}


def ranges(labels: list[int]) -> list[list[int]]:
    """Ranges of tokens with a label. The first token's label is never used, because no position predicts it."""
    found = []
    for index, label in enumerate(labels):
        if label == IGNORE or index == 0:
            continue
        if found and found[-1][1] == index:
            found[-1][1] += 1
        else:
            found.append([index, index + 1])
    return found


def ours(row: dict) -> dict:
    """A row in simmer's format."""
    if "conversations" not in row:
        return row
    roles = itertools.cycle(["user", "assistant"])
    return {"messages": [{"role": role, "content": turn["value"]} for role, turn in zip(roles, row["conversations"])]}


def in_file(name: str, row: dict) -> dict:
    """A row in the format of the system's own files."""
    return {"topic": "-", "input": baize_text(row)} if name == "baize" else row


def rows_of(kind: str, rows: list[dict]) -> list[dict]:
    """The rows of a file, converted to this kind; empty if they cannot be."""
    if "conversations" in rows[0]:
        return rows if kind == "conversations" else []
    if kind == "conversations":
        return []
    if kind == "prompt":
        return [{"prompt": row["instruction"], "response": row["output"]} for row in rows if not row["input"]]
    return rows


LONG = "Peel the onion, halve it, slice it thinly, and fry it in butter until it is golden. " * 8


def instruction(instruction: str, output: str, input: str = "") -> dict:
    return {"instruction": instruction, "input": input, "output": output}


def conversation(*values: str) -> dict:
    roles = itertools.cycle(["human", "gpt"])
    return {"conversations": [{"from": role, "value": value} for role, value in zip(roles, values)]}


def golden_rows() -> dict[str, list[dict]]:
    kitchen = json.loads((ROOT / "data/kitchen/instructions.json").read_text())
    instructions = [kitchen[index] for index in (0, 1, 2, 7, 400)] + [
        instruction("Übersetze 'lemon' ins Japanische.", "レモン 🍋", "{lemon} [[x]]"),
        instruction("Say nothing.", ""),
        instruction("Write a list.", "\n1. flour\n2. butter\n"),
        instruction("Indent it.", "  four\n    spaces  "),
        instruction("Count.", "1, 2, 3"),
        instruction("Write it twice.", "</s>stop</s>go"),
        instruction("How is onion fried?", LONG),
        instruction("Shorten it.", "Fry it.", LONG),
    ]
    conversations = [
        conversation("Hello!", "Hello, chef."),
        conversation("Hello!", "Hello, chef.", "What is sour?", "The lemon.\nAnd the lime.", "Thanks", "Bye!"),
        conversation("Was heißt レモン 🍋?", "Zitrone – ünd {mehr}.", "{}", "[[ok]]"),
        conversation("Indent it.", "  four\n    spaces  ", " again ", "\n again\n"),
        conversation("1", "2", "3", "4"),
        conversation("How is onion fried?", LONG, "Thanks", "Bye!"),
        conversation(LONG, "Fry it."),
        conversation("Say nothing.", "", "Well?", "Nothing."),
        conversation("What does USER: hi ASSISTANT: hello mean?", "A greeting.", "Thanks", "Bye!"),
        conversation("Write it twice.", "</s>stop</s>go", "Thanks", "Bye!"),
        conversation("Hello!", "Hello,\n[|Human|] chef.", "What?", "Nothing."),
    ]
    prompts = [{"prompt": row["instruction"], "response": row["output"]} for row in instructions]
    prompts.append({"prompt": LONG, "response": "Fry it."})
    return {"instruction": instructions, "conversations": conversations, "prompt": prompts}


# Numbers of golden rows that an original treats differently from simmer, and how.
BREAKS = "two line breaks are one token of this tokenizer (LLaMA's has none such), and the prompt's tokens are counted without it"
FAULTS = {
    "alpaca-lora-answers": {7: BREAKS},
    "vicuna-v1.1": {
        7: "an empty answer has no end, and the next question follows at once",
        8: "a question with ` ASSISTANT: ` in it: nothing of the conversation is trained on",
        9: "an answer with `</s>` in it: nothing of the conversation is trained on",
    },
    "koala": {
        7: "an empty answer has no space before its end",
        9: "an answer that begins with `</s>` has no space before it",
    },
    "gpt4all": {
        6: "an empty response is refused",
        7: BREAKS,
        13: "a prompt of half the limit or more is cut to as many characters",
    },
}


def goldens(clones: Path, max_tokens: int = 256):
    originals = Originals(clones, ROOT / "tests/goldens/tokenizers/llama.model", max_tokens)
    OUT.mkdir(parents=True, exist_ok=True)
    rows = golden_rows()
    for name, system in SYSTEMS.items():
        one = system.original(originals)
        lines = []
        for number, row in enumerate(rows[system.rows]):
            golden = {"row": ours(row)}
            if fault := FAULTS.get(name, {}).get(number):
                golden["fault"] = fault
            try:
                ids, labels = one(row)
                golden |= {"ids": ids, "trained": ranges(labels)}
            except RuntimeError as error:
                golden["error"] = str(error)
            lines.append(json.dumps(golden))
        head = {"template": system.template, "train_on": system.train_on, "max_tokens": max_tokens}
        head = json.dumps(head)[1:-1]
        (OUT / f"{name}.json").write_text(f'{{{head}, "rows": [\n' + ",\n".join(lines) + "\n]}\n")


def compare(clones: Path, program: Path, model: Path, max_tokens: int, files: list[Path]):
    originals = Originals(clones, model, max_tokens)
    for file in files:
        rows = json.loads(file.read_text())
        for name, system in SYSTEMS.items():
            chosen = rows_of(system.rows, rows)
            if chosen:
                compare_rows(name, system, originals, program, model, file, chosen)


def compare_rows(name, system, originals, program, model, file, rows):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as lines:
        lines.writelines(json.dumps(in_file(name, row)) + "\n" for row in rows)
        lines.flush()
        settings = {"max_tokens": originals.max_tokens, "overlong": "truncate", "train_on": system.train_on}
        command = [program, model, system.template, lines.name, json.dumps(settings)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    one = system.original(originals)
    different = []
    for number, (row, line) in enumerate(zip(rows, map(json.loads, output), strict=True)):
        assert line["row"] == number + 1
        try:
            ids, labels = one(row)
        except Exception as error:  # originals fail in various ways
            different.append((number, row, f"the original fails: {error!r}", line))
            continue
        trained = ranges(labels)
        same = (ids, trained) == (line["ids"], line["trained"]) if "ids" in line else not trained
        if not same:
            different.append((number, row, {"ids": ids, "trained": trained}, line))
    print(f"{name}: {file.name}: {len(rows) - len(different)} of {len(rows)} rows equal", flush=True)
    for number, row, theirs, line in different[: int(os.environ.get("SHOW", "3"))]:
        print(f"  row {number + 1}: {difference(theirs, line)}: {json.dumps(row)[:300]}")


def difference(theirs, ours) -> str:
    if isinstance(theirs, str):
        return theirs
    if "ids" not in ours:
        return f"simmer skips it, the original has labels on {theirs['trained']}"
    if theirs["ids"] != ours["ids"]:
        both = itertools.zip_longest(theirs["ids"], ours["ids"])
        at = next(index for index, (a, b) in enumerate(both) if a != b)
        lengths = f"{len(theirs['ids'])} tokens and {len(ours['ids'])}"
        return f"{lengths}, first difference at {at}: {theirs['ids'][at - 2 : at + 5]} and {ours['ids'][at - 2 : at + 5]}"
    return f"same tokens; labels of the original {theirs['trained']}, of simmer {ours['trained']}"


def main():
    transformers.logging.set_verbosity_error()
    logging.disable()
    match sys.argv[1:]:
        case ["goldens", clones]:
            goldens(Path(clones))
        case ["compare", clones, program, model, max_tokens, *files] if files:
            compare(Path(clones), Path(program), Path(model), int(max_tokens), list(map(Path, files)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
