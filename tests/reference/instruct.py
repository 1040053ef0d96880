"""Generates tests/goldens/instruct: what the original programs of Self-Instruct, Stanford Alpaca and Baize make of completions.

The programs are run as they are, with a stand-in for OpenAI's client that answers with the texts of instruct_texts.py:

    python -m venv target/instruct && target/instruct/bin/pip install rouge-score==0.1.2 numpy
    git clone https://github.com/yizhongw/self-instruct         # 0b26ccaa415992100fa32df62d41b994cf928e23
    git clone https://github.com/tatsu-lab/stanford_alpaca      # 761dc5bfbdeeffa89b8bff5d038781a4055f796a
    git clone https://github.com/project-baize/baize-chatbot    # 4fae6c4e550f087958c1f60746f0e6290e6b9f02
    target/instruct/bin/python tests/reference/instruct.py self-instruct stanford_alpaca baize-chatbot
"""

import contextlib
import json
import os
import pickle
import runpy
import sys
import tempfile
import types
from pathlib import Path

import instruct_texts as texts

OUT = Path(__file__).parent.parent / "goldens/instruct"


class Bar:
    """Stands for tqdm.tqdm, as an iterable and as a bar."""

    def __init__(self, items=(), **_):
        self.items = items

    def __iter__(self):
        return iter(self.items)

    def update(self, _):
        pass


def stub(name, **attributes):
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module


def seeds():
    rows = []
    for number, (instruction, given, output, is_classification) in enumerate(texts.SEEDS):
        instances = [{"input": given, "output": output}]
        rows.append(
            {
                "id": f"seed_task_{number}",
                "name": f"seed {number}",
                "instruction": instruction,
                "instances": instances,
                "is_classification": is_classification,
            }
        )
    return rows


def write_lines(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def save(name, golden):
    OUT.mkdir(parents=True, exist_ok=True)
    text = json.dumps(golden, indent=1, ensure_ascii=False) + "\n"
    (OUT / f"{name}.json").write_text(text)
    print(f"{name}: {len(golden['rows'])} rows")


def choice(text, reason):
    return {"text": text, "finish_reason": reason}


def stand_ins():
    """What the programs import and these functions do not use."""
    stub("openai", openai_object=types.ModuleType("openai_object"), error=types.ModuleType("error"))
    sys.modules["openai"].openai_object.OpenAIObject = object
    stub("fire", Fire=lambda *_: None)
    stub("pandas")
    stub("datasets", load_dataset=None)
    stub("tqdm", tqdm=Bar)


@contextlib.contextmanager
def program(source, folder):
    """Runs inside `folder`, with the modules of the program's folder."""
    before, path = os.getcwd(), list(sys.path)
    sys.path.insert(0, str(source))
    os.chdir(folder)
    yield
    os.chdir(before)
    sys.path[:] = path


def alpaca(source):
    batches = iter(texts.ALPACA)
    prompts = []
    with tempfile.TemporaryDirectory() as folder, program(source, folder):
        write_lines("seed_tasks.jsonl", seeds())
        Path("prompt.txt").write_text((source / "prompt.txt").read_text())
        import generate_instruction as original

        def completion(prompts, **_):
            assert len(prompts) == 2
            return [choice(*text) for text in next(batches)]

        original.utils.openai_completion = completion
        original.generate_instruction_following_data(
            num_instructions_to_generate=texts.ALPACA_TARGET, request_batch_size=2, num_cpus=2
        )
        kept = json.loads(Path("regen.json").read_text())
        examples = [
            {"instruction": row["instruction"], "input": row["instances"][0]["input"], "output": row["instances"][0]["output"]}
            for row in seeds()
        ]
        for chosen in (examples[:3], [examples[4], examples[0], examples[8]]):
            names = [f"seed_task_{examples.index(example)}" for example in chosen]
            prompts.append({"examples": names, "prompt": original.encode_prompt(chosen)})
    used = len(texts.ALPACA) - len(list(batches))
    completions = [choice(*text) for batch in texts.ALPACA[:used] for text in batch]
    rows = [{key: row[key] for key in ("instruction", "input", "output")} for row in kept]
    similar = [
        {"nearest": list(row["most_similar_instructions"].values()), "mean": row["avg_similarity_score"]} for row in kept
    ]
    save("alpaca", {"seeds": seeds(), "batch": 2, "target": texts.ALPACA_TARGET, "completions": completions, "rows": rows,
                    "similar": similar, "prompts": prompts})


def self_instruct(source):
    code = source / "self_instruct"
    asked = []
    batches = iter(texts.INSTRUCTIONS)

    def make_requests(engine, prompts, max_tokens, **_):
        if max_tokens == 1024:
            found = next(batches)
        else:
            # the last instruction of the prompt
            which = [prompt.split("Task: ")[-1].split("\n")[0] for prompt in prompts]
            index = 0 if max_tokens == 3 else 1
            found = [(texts.INSTANCES[name][index], "stop" if index == 0 else texts.INSTANCES[name][2]) for name in which]
        asked.extend(choice(*text) for text in found)
        return [{"prompt": prompt, "response": {"choices": [choice(*text)]}} for prompt, text in zip(prompts, found)]

    stub("gpt3_api", make_requests=make_requests)

    def run(name, *args):
        sys.argv = [name, *args]
        return runpy.run_path(str(code / f"{name}.py"), run_name="__main__")

    with tempfile.TemporaryDirectory() as folder, program(code, folder):
        write_lines("seeds.jsonl", seeds())
        target = str(texts.INSTRUCTIONS_TARGET)
        batch = ["--request_batch_size", "2"]
        original = run("bootstrap_instructions", "--batch_dir", "out", "--seed_tasks_path", "seeds.jsonl",
                       "--num_instructions_to_generate", target, *batch)
        run("identify_clf_or_not", "--batch_dir", "out", *batch)
        run("generate_instances", "--batch_dir", "out", *batch)
        run("prepare_for_finetuning", "--instance_files", "out/machine_generated_instances.jsonl",
            "--classification_type_files", "out/is_clf_or_not_davinci_template_1.jsonl", "--output_dir", "out/f",
            "--include_seed_tasks", "--seed_tasks_path", "seeds.jsonl")
        instructions = read_lines("out/machine_generated_instructions.jsonl")
        kinds = read_lines("out/is_clf_or_not_davinci_template_1.jsonl")
        rows = read_lines("out/f/all_generated_instances.jsonl")
    shown = [row["instruction"] for row in seeds()][:8]
    kept = [
        {"instruction": row["instruction"], "nearest": list(row["most_similar"].values()), "mean": row["avg_similarity_score"],
         "is_classification": kind["is_classification"].strip() in ["Yes", "yes", "YES"]}
        for row, kind in zip(instructions, kinds)
    ]
    prompt = original["encode_prompt"](shown)
    save("self-instruct", {"seeds": seeds(), "batch": 2, "target": texts.INSTRUCTIONS_TARGET, "completions": asked,
                           "instructions": kept, "rows": rows, "prompt": prompt})


def baize(source):
    with tempfile.TemporaryDirectory() as folder, program(source, folder):
        os.mkdir("collected_data")
        with open("collected_data/kitchen_chat_0.pkl", "wb") as file:
            pickle.dump(texts.CHATS, file)
        sys.argv = ["preprocess", "kitchen"]
        runpy.run_path(str(source / "preprocess.py"), run_name="__main__")
        rows = json.loads(Path("data/kitchen_chat_data.json").read_text())
    save("baize", {"seeds": list(texts.CHATS), "completions": [choice(text, "stop") for text in texts.CHATS.values()],
                   "rows": rows})


if __name__ == "__main__":
    stand_ins()
    sources = [Path(argument).resolve() for argument in sys.argv[1:]]
    alpaca(sources[1])
    self_instruct(sources[0])
    baize(sources[2])
