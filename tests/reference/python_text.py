"""Generates tests/goldens/python_text.json: values as Python and transformers' chat templates write them.

    python tests/reference/python_text.py

`floats` has the bits of floats and Python's `repr` of each: powers of ten and of two, the limits of the notation with an
exponent, and random bits. `cases` has templates over `values`, rendered by transformers' own environment, or the message of
its error. `texts` has texts with special characters and Python's `repr` and `json.dumps` of each.
"""

import json
import random
import struct
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template

OUT = Path(__file__).resolve().parents[2] / "tests/goldens/python_text.json"

VALUES = {
    "n": [0, -1, 7, 2**53 + 1, -(2**63), 2**64 - 1],
    "f": [0.5, -0.0, 1e-7, 1e22, 1e16, 1e15, 123456.75, 1e-5, 1e-4, -2.5e-300, 5e-324],
    "m": {"x": 1e-7, "y": [1e22, True, None, "it's"], "z": {}, "é": [], "🍋": '"'},
    "nested": {"b": [{"d": 1, "c": [2.0]}, []], "a": {"k": "v"}},
    "big": [2**64, -(2**63) - 1, 10**30 + 1, -(2**127), 2**128 - 1, 2**128, -(10**60), 10**99 + 7],
    "words": ["a", "b\n", "</ü>", "\u0007\u007f\u00a0\u2028\u200b"],
    "same": [[1], [1]],
    "none": None,
}

JSON_ARGUMENTS = [
    "",
    "()",
    "(true)",
    "(false, 1)",
    "(false, none, (',', ':'))",
    "(true, 2, [';', '='], true)",
    "(ensure_ascii=true)",
    "(ensure_ascii=0)",
    "(indent=0)",
    "(indent=-3)",
    "(indent=2)",
    "(indent=4, sort_keys=true)",
    "(indent=true)",
    "(indent='\\t')",
    "(indent='--', separators=(', ', ' : '))",
    "(separators=(',', ':'))",
    "(separators=[', ', ': '], indent=1)",
    "(separators=('', ''))",
    "(sort_keys=true)",
    "(sort_keys=true, ensure_ascii=true, indent=none)",
    "(separators=none, indent=none, ensure_ascii=none)",
]

# The operator `%` and the filter `format`.
PERCENT = [
    "'%s' % 'x'",
    "'%s and %s' % ('x', words)",
    "'%s' % m",
    "'%s' % (m,)",
    "'%s' % [1, 2]",
    "'%s %s' % [1, 2]",
    "'%s' % (1, 2)",
    "'%s' % ()",
    "'no' % ()",
    "'no' % []",
    "'no' % [1]",
    "'no' % m",
    "'no' % 1",
    "'no' % 'x'",
    "'no' % none",
    "'no' % undefined_name",
    "'[%s]' % undefined_name",
    "'%s %s %s' % (none, true, 1e-7)",
    "'%r %r %a %a' % (\"it's\", words, 'é🍋', 'ü')",
    "'100%% of %d%%' % 7",
    "'%d %i %u' % (7, -7.9, true)",
    "'%d' % 'x'",
    "'%d' % none",
    "'%d|%d|%d' % (big[0], big[6], -0.5)",
    "'%x %X %o %#x %#o %#X' % (255, 255, 8, 255, 8, 255)",
    "'%x %#x %o' % (-255, -1, true)",
    "'%x' % 1.5",
    "'%5d|%-5d|%05d|%+d|% d|%+05d|%-05d' % (42, 42, 42, 42, 42, 42, 42)",
    "'%5d|%-5d|%05d|% 05d' % (-42, -42, -42, 42)",
    "'%.3d|%6.3d|%06.3d|%#06x|%#6x' % (5, 5, 5, 255, 255)",
    "'%.2f|%f|%.0f|%#.0f|%8.3f|%-8.1f|%08.2f|%+.1f' % (1.005, 2, 2.5, 2.5, 3.14159, 2.25, -1.5, 0.05)",
    "'%F %f %f' % (1e300, true, big[0])",
    "'%e|%.2e|%E|%.0e|%#.0e|%e' % (12345.678, 0, 1e-7, 15, 15, 1e100)",
    "'%g|%g|%g|%g|%g|%g|%g' % (100000, 1000000, 1e-4, 1e-5, 0.1, 1e16, 0)",
    "'%.3g|%.10g|%#g|%#.3g|%G|%.0g' % (1234.5, 1234.5, 1, 1e10, 1e-10, 15)",
    "'%f %e %g %05f %F %+f' % (1e308 * 10, -1e308 * 10, 1e308 * 10 - 1e308 * 10, 1e308 * 10, 1e308 * 10, 1e308 * 10)",
    "'%f' % 'x'",
    "'%g' % none",
    "'%10s|%-10s|%.2s|%5.1s|%05s|%-3s' % ('ab', 'ab', 'abc', 'xyz', 'ab', 'é')",
    "'%*d|%-*d|%.*f|%*s' % (5, 42, 5, 42, 2, 1.2345, -4, 'a')",
    "'%*d' % ('x', 1)",
    "'%c%c' % ('a', 233)",
    "'%c' % 'ab'",
    "'%(x)s %(z)s %%' % m",
    "'%(x).2e|%(x)10s' % m",
    "'%(no)s' % m",
    "'%(x)s' % 'x'",
    "'%(x)s' % [1]",
    "'%(a(b))s' % {'a(b)': 1}",
    "'%(x' % m",
    "'%ld %hd' % (1, 2)",
    "'%y' % 1",
    "'% ' % 1",
    "'abc %' % 1",
    "'%s' * 2 % (1, 2)",
    "'a%s' % 'b' % ()",
    "'a' ~ '%s' % 1 ~ 'c' + '%d' % 2",
    "-7 % 3 ~ ' ' ~ 7 % -3 ~ ' ' ~ 7.5 % 2 ~ ' ' ~ -7.5 % 2 ~ ' ' ~ true % 2",
    "2 * 7 % 4 * 3 ~ ' ' ~ 2 ** 3 % 5 ~ ' ' ~ 100 // 7 % 4",
    "7 % 0",
    "7 % 'x'",
    "[1] % 2",
    "big[0] % 7",
    "'%s' % 'x' if '%d' % 1 == '1' else 'y'",
    "'%s is %d' | format('x', 3)",
    "'%s' | format",
    "'%(a)s %(b)05.1f' | format(a='x', b=2)",
    "'%s' | format(1, 2)",
    "'%s' | format((1, 2))",
    "'<%s>' | safe % '<'",
    "words | map('string') | join('%') ~ '%'",
]

TEMPLATES = [
    "{{ f }}",
    "{{ n }}",
    "{% for x in f %}{{ x }} {{ x|string }} {{ '' ~ x }} {{ [x] }} {{ x|tojson }}\n{% endfor %}",
    "{% for x in n %}{{ x }} {{ x|string }} {{ '' ~ x }} {{ [x] }} {{ x|tojson }}\n{% endfor %}",
    "{% for x in big %}{{ x }} {{ x|string }} {{ '' ~ x }} {{ [x] }} {{ x|tojson }} {{ {'x': x} }}\n{% endfor %}",
    "{{ big }} {{ big|tojson(indent=1) }} {{ big|join('-') }}",
    "{{ big[0] + 1 }} {{ big[2] is integer }} {{ big[2] is number }} {{ big[7] is string }} {{ big[7] is mapping }}",
    "{{ m }}",
    "{{ nested }}",
    "{{ words }}",
    "{{ m|string }}|{{ 'm: ' ~ m }}|{{ m ~ none ~ true }}",
    "{{ f|join(', ') }}",
    "{{ n|join }}",
    "{{ [none, true, 1e-7, [1e22]]|join('-') }}",
    "{{ 'x' ~ 2 * f[2] ~ -f[3] ~ 1e-7 + 1 if false else 'x' ~ f[2] * 2 ~ -f[3] }}",
    "{% set s = 'a' ~ f[2] %}{{ s }}{{ s|length }}",
    "{{ m.items()|list }}",
    "{{ m.x }}{{ m['x'] }}{{ m.get('x') }}",
    "{{ f[3] * 10 }} {{ f[2] / 10 }} {{ 1e308 * 10 }} {{ -1e308 * 10 }} {{ 1e308 * 10 - 1e308 * 10 }}",
    "{{ (1e308 * 10)|tojson }} {{ [-1e308 * 10, 1e308 * 10 - 1e308 * 10]|tojson }}",
    "{{ {1: 'a', 2.5: 'b', true: 'c', none: 'd', 1e-7: 'e'}|tojson }}",
    "{{ {3: 'c', 1: 'a', 2: 'b', 10: 'd'}|tojson(sort_keys=true) }}",
    "{{ {1: 'a', 'b': 2}|tojson(sort_keys=true) }}",
    "{{ {'b': 1}|tojson(indent=2) }}{{ {}|tojson(indent=2) }}{{ []|tojson(indent=2) }}{{ [[], {}]|tojson(indent=2) }}",
    "{{ (1, 2)|tojson }} {{ (1,) }} {{ (1, 2.0) }} {{ () }}",
    "{{ undefined_name|tojson }}",
    "{{ 1|tojson(separators=',') }}",
    "{{ words[1:]|tojson }} {{ words[1:] }}",
    "{{ f|first }} {{ f|last }} {{ f|sum }} {{ f|max }}",
    "{{ \"it's\" }} {{ [\"it's\", 'say \"x\"', 'both \\'\"'] }}",
    "{{ m|tojson|replace('\"', \"'\") }}",
    "{{ m|tojson|length }} {{ m|tojson ~ '<&>' }}",
    "{{ words[2]|e }} {{ words|escape }} {{ ('<&>' ~ \"'\")|escape }} {{ '<'|safe|e }} {{ m|tojson|e|e }} {{ none|e }}",
    "{{ '<'|safe + words[2] + '\"' }} {{ '<' + words[2] }} {{ 'a' + '<b>'|safe + m|tojson }} {{ '<' ~ '>'|safe ~ words[2] }}",
    "{% set x = 'a>' + words[2]|safe %}{{ x }} {{ '<' + x|safe + ('<' + '>') + '&' if x else '' }} {{ f[0] - 1 }}",
    "{{ \"it's a dog-day's o_k\".title() }} {{ 'Ab ß'.swapcase() }} {{ 'ß É'.casefold() }} {{ words[2].title() }}",
    "{{ 'a-b-c'.rsplit('-', 1) }} {{ 'a b'.rsplit() }} {{ 'a-b'.partition('-') }} {{ 'ab'.partition('-') }} {{ 'a-b-c'.rpartition('-') }}",
    "{{ 'a-b'.index('-') }} {{ 'é-b-'.rindex('-') }} {{ ['x', 'y'].index('y') }} {{ ['x'].copy() }} {{ m.copy() }}",
    "{{ 'a'.index('b') }}",
    "{{ ['a'].index('b') }}",
    "{{ 'a.b'.removeprefix('a') }} {{ 'a.b'.removesuffix('b') }} {{ 'ab'.removeprefix('b') }} {{ 'éab'.startswith('a', 1) }} {{ 'ab'.startswith('a', 9) }}",
    "{{ 'x'.zfill(4) }} {{ '-1'.zfill(4) }} {{ 'ab'.ljust(5) }}| {{ 'ab'.rjust(5, '*') }} {{ 'ab'.center(5) }}|{{ 'abc'.center(6) }}| {{ 'abc'.center(2) }}",
    "{{ 'a\\u2028b\\x0bc\\x1cd\\r\\ne\\n\\nf\\n'.splitlines() }} {{ 'a\\r\\nb\\r'.splitlines(true) }} {{ ''.splitlines() }} {{ 'a\\nb'.splitlines(keepends=true) }}",
    "{{ 'x'|int }} {{ '12'|int }} {{ 'x'|int(3) }} {{ 'x'|int(default=4) }} {{ 2.9|int }} {{ 'x'|float }} {{ '2'|float }} {{ 'x'|float(1.5) }}",
    "{{ none|tojson }} {{ true|tojson }} {{ 'é<'|tojson }} {{ 'é<'|tojson(ensure_ascii=true) }}",
    *(f"{{{{ {case} }}}}" for case in PERCENT),
    *(f"{{{{ {value}|tojson{arguments} }}}}" for value in ["m", "nested", "words", "f"] for arguments in JSON_ARGUMENTS),
]

TEXTS = [
    "plain",
    "it's",
    'say "x"',
    "both '\"",
    "back\\slash \\n",
    "\x00\x01\x08\t\n\x0b\x0c\r\x1b\x1f \x7f\x80\x9f\xa0\xad\xff",
    "é ß ı ﬁ \u0301a\u0301 \u200b\u200d\u2028\u2029\u202e\ufeff\ue000\uffff\u3000",
    "🍋👩‍🍳\U0001f1e9\U000e0041\U0010fffd\U00010000",
    "日本語 العربية עברית हिन्दी 한국어 ไทย",
]


def bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def floats() -> list[float]:
    random.seed(7)
    values = [0.0, -0.0, 0.1, 0.2 + 0.1, 1 / 3, 1e15, 123456789012345.0, 1e16, 9999999999999998.0, 1.5e16, 2.0**63, 2.0**64]
    values += [float(f"1e{power}") for power in range(-324, 309, 3)]
    values += [sign * 10.0**power * digits for power in range(-7, 19) for digits in (1, 9.5, 1.234) for sign in (1, -1)]
    values += [2.0**power for power in range(-1074, 1024, 41)]
    values += [float("inf"), float("-inf"), float("nan"), 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]
    while len(values) < 900:
        value = struct.unpack(">d", random.randbytes(8))[0]
        if value == value:
            values.append(value)
    values += [random.uniform(-1000, 1000) for _ in range(100)]
    return values


def rendered(template: str) -> dict:
    try:
        return {"template": template, "text": _compile_jinja_template(template).render(**VALUES)}
    except Exception as error:
        return {"template": template, "error": f"{type(error).__name__}: {error}"}


def main():
    lines = {
        "values": [json.dumps(VALUES)],
        "floats": [json.dumps([bits(value), repr(value)]) for value in floats()],
        "texts": [json.dumps([text, repr(text), json.dumps(text), json.dumps(text, ensure_ascii=False)]) for text in TEXTS],
        "cases": [json.dumps(rendered(template), ensure_ascii=False) for template in TEMPLATES],
    }
    values = lines.pop("values")[0]
    parts = [f'"values": {values}'] + [f'"{key}": [\n' + ",\n".join(rows) + "\n]" for key, rows in lines.items()]
    OUT.write_text("{" + ",\n".join(parts) + "}\n")


if __name__ == "__main__":
    main()
