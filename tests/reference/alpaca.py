"""Alpaca's prompts, as its authors wrote them."""

WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
NO_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


def prompt(row: dict) -> str:
    """The text before the answer."""
    template = WITH_INPUT if row.get("input") else NO_INPUT
    # not `format`, because rows can contain braces
    return template.replace("{instruction}", row["instruction"]).replace("{input}", row.get("input", ""))
