"""Generates tests/goldens/chat_templates: conversations rendered by transformers with chat templates, and the characters
that belong to the assistant.

    python tests/reference/chat_templates.py SMOLLM2

SMOLLM2 is a folder with SmolLM2-135M-Instruct, whose own template is used too. transformers can mark the assistant's tokens
only if a template has `{% generation %}` blocks. Each template therefore has a second version, with such blocks around the
assistant's text and the token that ends it; both versions render the same text. The tokenizer has one token per character.
"""

import json
import re
import sys
from pathlib import Path

import transformers
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/goldens/chat_templates"

# The chat templates in the tokenizer_config.json of meta-llama/Llama-2-7b-chat-hf and Meta-Llama-3-8B-Instruct. Llama 3's
# always adds the generation prompt; here it depends on `add_generation_prompt`, as in later versions of it.
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}"
    "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + "
    "'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (ROOT / "data/templates/chatml.jinja").read_text()


def replaced(template: str, old: str, new: str) -> str:
    assert template.count(old) == 1, old
    return template.replace(old, new)


def marked(name: str, template: str) -> str:
    """The template with `{% generation %}` blocks around the assistant's text."""
    if name == "llama-2-chat":
        old = "{{ ' '  + content.strip() + ' ' + eos_token }}"
        return replaced(template, old, "{% generation %}" + old + "{% endgeneration %}")
    if name == "llama-3":
        start = template.index("{% set content = '<|start")
        end = template.index("{% endfor %}")
        return (
            template[:start]
            + "{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}"
            + "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
            + "{% if message['role'] == 'assistant' %}"
            + "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
            + "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}"
            + template[end:]
        )
    # ChatML: one expression renders the whole message.
    old = re.search(r"\{\{-? ?'<\|im_start\|>' \+ message\['role'\].*?\}\}", template, re.S).group()
    new = (
        "{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['role'] == 'assistant' %}"
        "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\\n' }}"
    )
    return replaced(template, old, new)


def conversations() -> list[list[dict]]:
    """Twenty conversations that all templates accept."""

    def talk(*texts, system=None):
        roles = ["user", "assistant"] * len(texts)
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts)]
        return [{"role": "system", "content": system}] * (system is not None) + messages

    return [
        talk("Hello!", "Hello, chef."),
        talk("Hello!", "Hello, chef.", system="Be brief."),
        talk("What is sour?", "The lemon.", "And sweet?", "The pear.", "Thanks", "Bye!"),
        talk("What is sour?", "The lemon.", "And sweet?", "The pear.", system="You know fruit.\nAnswer in one line."),
        talk("Was heißt レモン 🍋?", "Zitrone – ünd 🍋.", system="Übersetze."),
        talk(" spaces \n", "\n both sides \n", "\tagain ", " and again"),
        talk("  Hello!", "Hi.", system="  Be brief.  "),
        talk("Indent it.", "def f():\n    return {'a': [1, 2]}\n", "Again.", "```\ncode\n```"),
        talk("{{ braces }} {% if %}", "{user} [[x]] <<y>>"),
        talk("Say [INST] and <<SYS>>.", "[INST] <<SYS>>", "Again.", "[/INST]"),
        talk("Say nothing.", ""),
        talk("Say nothing.", "", "Well?", "Nothing."),
        talk("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"),
        talk("the same", "the same", "the same", "the same", system="the same"),
        talk("1", "11", "111", "1111"),
        talk("user", "assistant", "system", "user\nassistant"),
        talk("Fry it. " * 40, "Golden. " * 40),
        talk("Long?", "Fry it.\n\n" * 20, "Short.", "Yes."),
        talk("'quotes' \"and\" \\backslashes\\", "It's \"done\" \\n."),
        talk("Hello!", "Hello, chef.", "What is sour?"),
    ]


def tools() -> list[list[dict]]:
    """Conversations with a tool's answers, for templates that accept any role."""
    said = [("user", "Add 2 and 2."), ("assistant", "add(2, 2)"), ("tool", " 4\n"), ("assistant", "It is 4.")]
    messages = [{"role": role, "content": text} for role, text in said]
    return [messages, [{"role": "system", "content": "You add."}, *messages]]


def tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    characters = sorted(set("".join(texts)))
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(BPE({character: id for id, character in enumerate(characters)}, []))
    )


def spans(text: str, mask: list[int]) -> list[list[int]]:
    """Ranges of the bytes of the characters that the mask selects."""
    found, at = [], 0
    for character, trained in zip(text, mask, strict=True):
        end = at + len(character.encode())
        if trained and found and found[-1][1] == at:
            found[-1][1] = end
        elif trained:
            found.append([at, end])
        at = end
    return found


def golden(name: str, template: str, specials: dict, talks: list[list[dict]]) -> str:
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), chat_template=template, **specials)
    texts = [plain.apply_chat_template(talk, tokenize=False) for talk in talks]
    characters = tokenizer(texts)
    characters.chat_template = marked(name, template)
    cases = []
    for talk, text in zip(talks, texts):
        with_marks = characters.apply_chat_template(talk, tokenize=False, **specials)
        assert with_marks == text, (with_marks, text)
        data = characters.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True, **specials)
        assert len(data["input_ids"]) == len(text)
        asked = talk[:-1] if talk[-1]["role"] == "assistant" else talk
        prompt = plain.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        case = {"messages": talk, "text": text, "prompt": prompt, "trained": spans(text, data["assistant_masks"])}
        cases.append(json.dumps(case, ensure_ascii=False))
    head = json.dumps({"chat_template": template, "marked": characters.chat_template, **specials}, ensure_ascii=False)[1:-1]
    return f'{{{head}, "cases": [\n' + ",\n".join(cases) + "\n]}\n"


def main():
    smollm2 = Path(sys.argv[1])
    transformers.logging.set_verbosity_error()
    templates = {
        "llama-2-chat": (LLAMA_2, "<s>", "</s>", []),
        "llama-3": (LLAMA_3, "<|begin_of_text|>", "<|eot_id|>", tools()),
        "chatml": (CHATML, "<|im_start|>", "<|im_end|>", tools()),
        "smollm2": ((smollm2 / "chat_template.jinja").read_text(), "<|im_start|>", "<|im_end|>", tools()),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    for name, (template, bos, eos, more) in templates.items():
        specials = {"bos_token": bos, "eos_token": eos}
        (OUT / f"{name}.json").write_text(golden(name, template, specials, conversations() + more))


if __name__ == "__main__":
    main()
