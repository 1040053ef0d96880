"""Generates tests/goldens/chat_calls.json: rows with tools, calls and results, rendered by transformers with small chat templates
of the kinds that models have, and the characters that belong to the assistant.

    python tests/reference/chat_calls.py

Rows are kept as JSON text, because numbers are written as they stand there: integers beyond 64 and 128 bits, floats with
exponents. transformers marks the assistant's tokens by `{% generation %}` blocks; `{#[#}` and `{#]#}` are their places, comments in
the version without marks. The tokenizer has one token per character.
"""

import json
from pathlib import Path

from chat_templates import spans, tokenizer
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

OUT = Path(__file__).resolve().parents[2] / "tests/goldens/chat_calls.json"
SPECIALS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}

TURN = "<|im_start|>{{ m.role }}\n"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
TEMPLATES = {
    # Qwen's: arguments and tools as JSON.
    "json": "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}{% for m in messages %}" + TURN
    + "{% if m.role == 'assistant' %}{#[#}{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}<|im_end|>{#]#}{% else %}"
    "{{ m.content }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}" + PROMPT,
    # Qwen3-Coder's and GLM's: one argument after another; texts as they are.
    "items": "{% for t in tools or [] %}{{ t.function | string }} {{ t.function.parameters | tojson(indent=1) }}\n{% endfor %}"
    "{% for m in messages %}" + TURN
    + "{% if m.role == 'assistant' %}{#[#}{{ m.content }}{% for c in m.tool_calls or [] %}<{{ c.function.name }}>"
    "{% for k, v in c.function.arguments | items %}<{{ k }}>{{ v if v is string else v | tojson }}</{{ k }}>{% endfor %}"
    "</{{ c.function.name }}>{% endfor %}<|im_end|>{#]#}{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}"
    + PROMPT,
    # gpt-oss's and Solar's: the name of the called function comes again with its result, which is JSON.
    "name twice": "{% for t in tools or [] %}{{ t.function.description ~ ' ' ~ t.function.parameters }}\n{% endfor %}"
    "{% for m in messages %}{% if m.tool_calls %}<|im_start|>assistant\n{#[#}{{ m.content }}{% for c in m.tool_calls %}"
    " to={{ c.function.name }} {{ c.function.arguments }}{% set ns.name = c.function.name %}{% endfor %}<|im_end|>{#]#}\n"
    "{% elif m.role == 'tool' %}<|im_start|>{{ ns.name }}\n{{ m.content | tojson }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{#[#}{{ m.content }}<|im_end|>{#]#}\n"
    "{% else %}" + TURN + "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}" + PROMPT,
    # functionary's: a safe text escapes what is added to it.
    "safe": "{% for t in tools or [] %}{{ \"Use '\"|safe + t.function.name + \"' \" + t.function.description + '\\n'|safe + t | tojson }}"
    "{{ t.function.description | e }}\n{% endfor %}{% for m in messages %}" + TURN
    + "{% if m.role == 'assistant' %}{#[#}{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ '<call>'|safe + c.function.name + c.function.arguments | tojson }}{% endfor %}<|im_end|>{#]#}{% else %}"
    "{{ m.content }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}" + PROMPT,
}
TEMPLATES["name twice"] = "{% set ns = namespace(name='') %}" + TEMPLATES["name twice"]

TOOLS = """[{"type": "function", "function": {"name": "weather", "description": "The \\"weather\\" <now> & later, it's ünd", "parameters": \
{"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "number", "minimum": 1e-7, "maximum": 1e22, \
"multipleOf": 123456789012345678901234567890, "enum": [1.0, 2, null, true]}}, "required": ["city"]}}}]"""

ARGUMENTS = [
    '{"city": "Rome", "days": 2}',
    '{"city": "Köln \\"x\\" it\'s 🍋 <b>&\\n", "days": null}',
    '{"a": 18446744073709551616, "b": -9223372036854775809, "c": [340282366920938463463374607431768211456, 12345678901234567890]}',
    '{"a": 1e-7, "b": 1e22, "c": 1.0, "d": -0.0, "e": -0, "f": 100000000000000000000.0, "g": 0.1}',
    '{"a": true, "b": false, "c": [], "d": {}, "e": "", "f": {"x": [1, {"y": [true, "z"]}], "w": {"v": 2.5}}}',
    "{}",
]


def call(arguments: str) -> str:
    return f'{{"id": "call00001", "type": "function", "function": {{"name": "weather", "arguments": {arguments}}}}}'


def rows() -> list[str]:
    user, result = '{"role": "user", "content": "Weather?"}', '{"role": "tool", "tool_call_id": "call00001", "content": "sunny \\"25\\""}'
    answer = '{"role": "assistant", "content": "It is <sunny>."}'

    def row(*messages: str) -> str:
        return f'{{"messages": [{", ".join(messages)}], "tools": {TOOLS}}}'

    def calling(content: str, *arguments: str) -> str:
        return f'{{"role": "assistant", "content": {content}, "tool_calls": [{", ".join(map(call, arguments))}]}}'

    return [
        *(row(user, calling('""', arguments), result, answer) for arguments in ARGUMENTS),
        row(user, calling('"I look it up."', ARGUMENTS[0]), result, answer, user, calling('""', ARGUMENTS[2]), result, answer),
        row(user, calling('""', ARGUMENTS[0], ARGUMENTS[5]), result, result, answer),
        row('{"role": "system", "content": "Be brief."}', user, calling('""', ARGUMENTS[0])),
    ]


def cases(template: str, texts: list[str]) -> list[str]:
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), chat_template=template, **SPECIALS)
    loaded = [json.loads(text) for text in texts]
    rendered = [plain.apply_chat_template(row["messages"], row["tools"], tokenize=False) for row in loaded]
    characters = tokenizer(rendered)
    characters.chat_template = template.replace("{#[#}", "{% generation %}").replace("{#]#}", "{% endgeneration %}")
    found = []
    for row, text in zip(loaded, rendered):
        data = characters.apply_chat_template(
            row["messages"], row["tools"], return_dict=True, return_assistant_tokens_mask=True, **SPECIALS
        )
        assert len(data["input_ids"]) == len(text)
        found.append(json.dumps({"text": text, "trained": spans(text, data["assistant_masks"])}, ensure_ascii=False))
    return found


def main():
    texts = rows()
    lines = ",\n".join(json.dumps(text, ensure_ascii=False) for text in texts)
    parts = [
        json.dumps({"name": name, "chat_template": template})[:-1] + ', "cases": [\n' + ",\n".join(cases(template, texts)) + "\n]}"
        for name, template in TEMPLATES.items()
    ]
    OUT.write_text(f'{{"rows": [\n{lines}\n], "templates": [\n' + ",\n".join(parts) + "\n]}\n")


if __name__ == "__main__":
    main()
