"""Writes the JSON of the goldens in a readable form."""

import json
import re
from pathlib import Path

NUMBER_LIST = re.compile(r"\[\s+(-?[0-9][^\[\]{}\"]*?)\s+\]")


def write_json(path: Path, value) -> None:
    """Writes indented JSON, with each list of numbers on one line."""
    text = json.dumps(value, indent=2)
    path.write_text(NUMBER_LIST.sub(lambda match: "[" + re.sub(r",\s+", ", ", match[1]) + "]", text) + "\n")
