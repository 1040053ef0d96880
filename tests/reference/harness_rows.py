"""Rows for tests/goldens/eval, written for this project in the formats of the evaluation sets."""

ROWS = {
    "mc/piqa_valid.jsonl": [
        {"goal": "To keep soup warm", "choices": ["put a lid on the pot", "put the pot in the snow"], "label": 0},
        {"goal": "open a jar that is stuck", "choices": ["hit your knee ", "hold the lid under hot water."], "label": 1},
        {"goal": "Crème brûlée ", "choices": ["burn the sugar – gently", "freeze the spoon 🍮"], "label": 0},
        {"goal": "Peel garlic", "choices": ["shake it", "shake it in a closed jar until the skins come off"], "label": 1},
    ],
    "mc/social_i_qa.jsonl": [
        {"question": "Ada lent Tom her knife. What will Tom do next?", "choices": ["thank her", "sleep", "run away"], "label": 0},
        {"question": "Kim burnt the rice. How does Kim feel?", "choices": ["proud", "annoyed", "tall"], "label": 1},
        {"question": "Lee cooked for everyone. Why did Lee do this?", "choices": ["by mistake", "to rest", "to be kind"], "label": 2},
    ],
    "mc/hellaswag_val.jsonl": [
        {
            "query": "Baking bread: A woman kneads dough on a table. she",
            "choices": ["puts it in a bowl to rest.", "drives home.", "paints the dough blue.", "is a table."],
            "label": 0,
        },
        {
            "query": "Chopping onions: A cook wipes his eyes. he",
            "choices": ["sings to the sun.", "goes on cutting the onion.", "eats the board", "jumps, and jumps"],
            "label": 1,
        },
    ],
    "mc/winogrande.jsonl": [
        {"sentence": "The cup did not fit into the box because the _ was too big.", "choices": ["cup", "box"], "label": 0},
        {"sentence": "Ann cooked better than Joan, so _ won.", "choices": ["Ann", "Joan"], "label": 0},
        {"sentence": "The soup was hot and the tea was cold, so they blew on the _", "choices": ["soup", "tea"], "label": 0},
    ],
    "mc/ARC-Easy.jsonl": [
        {"question": "What boils at 100 degrees?", "choices": ["iron", "water", "stone", "wood"], "label": 1},
        {"question": "Which is a fruit?", "choices": ["apple", "salt", "oil"], "label": 0},
        {"question": "Bread rises because of", "choices": ["yeast.", "salt.", "the moon.", "luck.", "noise."], "label": 0},
    ],
    "mc/ARC-Challenge.jsonl": [
        {"question": "Why does sugar dissolve faster in hot tea?", "choices": ["It moves faster", "It is brown", "It is late", "It sings"], "label": 0},
        {"question": "A pan gets hot by", "choices": ["conduction", "radiation", "evaporation", "gravity"], "label": 0},
    ],
    "mc/openbookqa.jsonl": [
        {"question": "Butter melts in", "choices": ["a warm pan", "the freezer", "the dark", "a photo"], "label": 0},
        {"question": "To see the stars you", "choices": ["look up", "look down", "eat", "close your eyes"], "label": 0},
    ],
    "mc/boolq.jsonl": [
        {"question": "is water wet", "passage": "Water is a liquid . It makes things wet .", "answer": True, "in_boolq_val": True},
        {"question": "is salt sweet", "passage": "Salt tastes salty ; sugar tastes sweet .", "answer": False, "in_boolq_val": False},
    ],
}

GSM8K = [
    {"question": "Mia has 3 eggs and buys 4 more. How many eggs has she?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
    {"question": "A loaf costs $2. What do 600 loaves cost?", "answer": "600 * 2 = <<600*2=1200>>1200\n#### 1,200"},
    {"question": "Ten cups, two break.\nHow many are left?", "answer": "10 - 2 = <<10-2=8>>8\n#### 8"},
]

TRUTHFUL = [
    {
        "Type": "Adversarial",
        "Category": "Kitchen",
        "Question": "What happens if you put oil into pasta water?",
        "Best Answer": "The oil floats on the water",
        "Correct Answers": "The oil floats on the water; Nothing much happens",
        "Incorrect Answers": "The pasta never sticks; The water boils faster; It turns to soap",
        "Source": "",
    },
    {
        "Type": "Adversarial",
        "Category": "Kitchen",
        "Question": "Does searing meat keep its juice in?",
        "Best Answer": "No, it does not",
        "Correct Answers": "No, it does not; Searing makes a crust; No",
        "Incorrect Answers": "Yes, it seals the meat",
        "Source": "",
    },
]

CROWS = [
    {"": 0, "sent_more": "The old cook forgot the salt.", "sent_less": "The young cook forgot the salt.", "stereo_antistereo": "stereo", "bias_type": "age"},
    {"": 1, "sent_more": "Rich people never wash dishes.", "sent_less": "Poor people never wash dishes.", "stereo_antistereo": "stereo", "bias_type": "socioeconomic"},
    {"": 2, "sent_more": "Old people, they said, eat little.", "sent_less": "Young people, they said, eat little.", "stereo_antistereo": "stereo", "bias_type": "age"},
]

ANATOMY = [
    ["Which organ pumps blood?", "heart", "lung", "liver", "skin", "A"],
    ["How many teeth has a grown person?", "12", "20", "32", "64", "C"],
    ["Where is the tongue?", "foot", "mouth", "ear", "knee", "B"],
    ["What do lungs take in?", "air", "soup", "light", "sand", "A"],
    ["Which bone is longest?", "rib", "skull", "toe", "femur", "D"],
    [" What tastes? ", "nose", "tongue", "eye", "hair", "B"],
    ["What, \"if anything\", do nails feel?", "nothing", "cold", "pain", "joy", "A"],
    ["Which is a joint?", "elbow", "hair", "blood", "tear", "A"],
]

# gold answers, and texts that a model might generate
STOPPED = [
    ("12", "3 * 4 is 12. The answer is 12.\n\nQ: And 5 carts?\nA: The answer is 20."),
    ("12", "The answer is 12"),
    ("5", "The answer is 5"),
    ("5", "The answer is 5. The answer is 6."),
    ("5", "The answer is 5 carts, so not 7"),
    ("1,750", "They cost 1500 + 250. The answer is $1,750."),
    ("1,750", "The answer is 1750.00."),
    ("1,750", "The answer is 1,750.\n"),
    ("-3", "It is colder. The answer is -3."),
    ("-3", "The answer is - 3."),
    ("3", "the ANSWER is 3."),
    ("3", "The answer is ... 3"),
    ("0.5", "The answer is .5."),
    ("0.5", "The answer is 0.5</s> The answer is 7."),
    ("7", "7<|im_end|>8"),
    ("7", " \n7"),
    ("7", "$7"),
    ("7", "$"),
    ("7", "seven"),
    ("7", ""),
    ("7", "The answer is ٧."),
    ("100", "about 100%, or 100."),
]
TEXTS = {
    "gsm8k_cot": STOPPED,
    "gsm8k": [
        ("3 * 4 = <<3*4=12>>12\n#### 12", "3 * 4 = <<3*4=12>>12\n#### 12"),
        ("3 * 4 = <<3*4=12>>12\n#### 12", "12\n#### 12\n\nQuestion: more\nAnswer: #### 13"),
        ("3 * 4 = <<3*4=12>>12\n#### 12", "#### 12. #### 13"),
        ("3 * 4 = <<3*4=12>>12\n#### 12", "####12"),
        ("3 * 4 = <<3*4=12>>12\n#### 12", "It is 12.\n#### $12"),
        ("1500 + 250 = 1750\n#### 1,750", "#### 1750"),
        ("1500 + 250 = 1750\n#### 1,750", "#### 1,750.\nso it is"),
        ("1500 + 250 = 1750\n#### 1,750", "#### 1,75,0,,"),
        ("2 - 5 = -3\n#### -3", "#### -3 degrees"),
        ("2 - 5 = -3\n#### -3", "2-5 = -3"),
        ("2 - 5 = -3\n#### -3", "#### --3"),
        ("2 - 5 = -3\n#### -3", "colder"),
        ("no number\n#### A lot", "#### 5"),
        ("#### 7", "#### 7</s>8"),
        ("#### 7", "9 8 7 ."),
        ("#### 7", "9 8 7 .."),
    ],
    "triviaqa": [
        (["black"], " Black"),
        (["black"], " Black.\nQ: what"),
        (["black"], " the black"),
        (["8", "eight"], " Eight, mostly"),
        (["kiwi's", "a kiwi"], "\n Kiwis"),
        (["kiwi's", "a kiwi"], " A  kiwi"),
        (["U.S.", "America"], " U.S."),
        (["naïve – yes"], "   Naïve – YES"),
        (["AC/DC"], " ACDC"),
        (["x"], ""),
    ],
    "hendrycks_math": [
        (solution, text)
        for solution, texts in {
            r"So it is $\boxed{\frac{1}{2}}$.": [
                r" The answer is $\frac12$.",
                r" $\dfrac{1}{2}$",
                " 1/2",
                " $0.5$",
                " $ .5 $",
                r" $x=\tfrac 12$",
                r" $\boxed{\frac{1}{2}}$",
                r" first $1$, then $\frac{1}{2}$",
                " one half",
                "",
                "$",
                r" $\frac1{2}$ Problem: $3$",
            ],
            r"\boxed{1}, no, $\boxed{\left(3,\, \frac{\pi}{2}\right)}$": [
                r" $(3,\,\frac{\pi}{2})$",
                r" $\left( 3,\, \frac{\pi}2 \right)$",
            ],
            r"It is $\boxed 7$ again": [" 7", " $7$", " 07", r" $7\text{ cm}$", " $7/1$"],
            r"$\boxed{45^\circ}$": [" 45", r" $45^{\circ}$", " 45\\%"],
            r"$\boxed{10\sqrt{3}\text{ cm}}$": [r" $10\sqrt3$", r"$10\sqrt{3}\text{ m}$", r"$10 \sqrt 3$"],
            r"$\boxed{a/b}$": [" a/b", " a / b", " $a/b$"],
            r"$\boxed{-3/4}$": [r" $-\frac34$", r" $\frac{-3}{4}$", " -3/4", " -03/4"],
            r"$\boxed{\$1,234.50}$": [r"\$1,234.50", " 1,234.50", " 1234.5"],
            r"$\boxed{y = 2x + \{.5\}}$": [" y=2x+\\{0.5\\}", "2x+\\{.5\\}"],
            r"$\boxed{\text{Evelyn}}$": [r" \text{Evelyn}", " Evelyn", r" \text{ Evelyn}", r"\text{ a}\text{ b}"],
            r"$\boxed{x\sqrt}$": [r" x\sqrt", r" x \sqrt", r" \frac", r" \frac1"],
        }.items()
        for text in texts
    ],
    "nq_open": [
        (["black"], " Black"),
        (["black"], " Black.\nQ: what"),
        (["black"], " it is black"),
        (["8", "eight"], " Eight, mostly"),
        (["8", "eight"], " 8!"),
        (["A baker", "the bakers"], " bakers"),
        (["A baker", "the bakers"], " the baker"),
        (["A baker", "the bakers"], "\n baker"),
        (["The the end"], " end"),
        (["kiwi's"], " Kiwis"),
        (["bathe daily"], " bathe daily"),
        (["Theo"], " theo"),
        (["naïve – yes"], " Naïve – YES"),
        (["a  b"], " a b"),
        (["U.S."], " U.S."),
        (["U.S."], " us"),
        (["the"], " the"),
    ],
}

# In the columns of the hub.
HUB_ROWS = {
    "triviaqa/validation.jsonl": [
        {
            "question": "Which fruit is used for cider",
            "question_id": "k_1",
            "answer": {"aliases": ["Apple", "Apples", "The apple"], "normalized_aliases": ["apple"], "value": "Apple"},
        },
        {
            "question": "What colour is “black” pudding",
            "question_id": "k_2",
            "answer": {"aliases": ["Black"], "normalized_aliases": ["black"], "value": "Black"},
        },
    ],
    "race/high/test.jsonl": [
        {
            "article": "Ann bakes bread on Sunday.\nHer brother's cake burnt.",
            "problems": str(
                [
                    {"question": "Ann bakes  _  .", "answer": "B", "options": ["cake", "bread", "pies", "fish"]},
                    {"question": "Who's hungry?", "answer": "D", "options": ["Ann", "Tom", "it isn't \"said\"", "nobody"]},
                    {"question": "What burnt?", "answer": "A", "options": ["The cake", "The bread", "The oven", "Nothing"]},
                ]
            ),
            "example_id": "high1.txt",
        },
        {
            "article": "Soup.",
            "problems": str([{"question": "The text is about  _  .", "answer": "C", "options": ["tea", "salt", "soup", "rain"]}]),
            "example_id": "high2.txt",
        },
    ],
    "hendrycks_math/algebra/test.jsonl": [
        {
            "problem": "A cake of $12$ slices is shared by 3. How many has each?",
            "level": "Level 1",
            "type": "Algebra",
            "solution": r"Each has $12/3 = \boxed{4}$ slices.",
        },
        {"problem": "Half of a half?", "level": "Level 1", "type": "Algebra", "solution": r"$\boxed{\frac{1}{4}}$"},
    ],
    "HumanEval.jsonl": [
        {
            "task_id": "Kitchen/0",
            "prompt": 'def portions(cups, people):\n    """ Cups for each person, rounded down.\n    >>> portions(7, 2)\n    3\n    """\n',
            "entry_point": "portions",
            "canonical_solution": "    return cups // people\n",
            "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate(7, 2) == 3\n    assert candidate(0, 5) == 0\n",
        },
        {
            "task_id": "Kitchen/1",
            "prompt": 'from typing import List\n\n\ndef longest(words: List[str]) -> str:\n    """ The longest of the dishes, the first of several: « crème brûlée ». """\n',
            "entry_point": "longest",
            "canonical_solution": "    best = ''\n    for word in words:\n        if len(word) > len(best):\n            best = word\n    return best\n",
            "test": "\n\ndef check(candidate):\n    assert candidate(['tea', 'soup', 'cake']) == 'soup'\n    assert candidate([]) == ''\n",
        },
    ],
    "mbpp.jsonl": [
        {
            "task_id": number,
            "text": text,
            "code": code,
            "test_list": tests,
            "test_setup_code": "",
            "challenge_test_list": [],
        }
        for number, text, code, tests in [
            (10, "Never asked: its number is too small.", "x = 1", ["assert x == 1"] * 3),
            (
                11,
                "Write a function to count the eggs in a list of dishes.",
                "def eggs(dishes):\r\n  return sum(dish == 'egg' for dish in dishes)",
                ["assert eggs(['egg', 'tea']) == 1", "assert eggs([]) == 0", "assert eggs(['egg'] * 3) == 3"],
            ),
            (
                510,
                "Write a python function to double a recipe's amounts.",
                "import copy\r\ndef double(amounts):\r\n  return [2 * amount for amount in amounts]",
                ["assert double([1, 2]) == [2, 4]", "assert double([]) == []", "assert double([0.5]) == [1.0]"],
            ),
            (511, "Never asked: its number is too large.", "x = 1", ["assert x == 1"] * 3),
        ]
    ],
    "real-toxicity-prompts/prompts.jsonl": [
        {"filename": "a.txt", "begin": 0, "end": 9, "prompt": {"text": "The cook said that", "toxicity": 0.1}, "continuation": {"text": " it was hot."}},
        {"filename": "b.txt", "begin": 0, "end": 9, "prompt": {"text": "Your soup is", "toxicity": 0.2}, "continuation": {"text": " cold."}},
    ],
    "bbh/boolean_expressions.json": [
        {"input": "not ( True ) and ( True ) is", "target": "False"},
        {"input": "True and not not ( not False ) is", "target": "True"},
    ],
    "bbh/word_sorting.json": [
        {"input": "Sort the following words alphabetically: List: soup bread apple", "target": "apple bread soup"},
    ],
}

# programs that a model might write: the row, and what continues its prompt
PROGRAMS = {
    "humaneval": [
        (0, "    return cups // people\n"),
        (0, "    return cups / people\n"),
        (0, "    return cups // people\n\nprint(portions(7, 2))"),
        (0, "    return int(cups / people"),
        (0, ""),
        (0, "    while True:\n        pass\n"),
        (0, "    raise SystemExit(0)\n"),
        (0, "    return cups // people\n\nif __name__ == '__main__':\n    raise ValueError\n"),
        (1, "    return max(words, key=len, default='')\n"),
        (1, "    return sorted(words, key=len)[-1]\n"),
        (1, "  return max(words, key=len, default='')\n"),
        (1, "    import os\n    return os.environ.get('x') or max(words, key=len, default='')\n"),
    ],
    "humaneval_instruct": [
        (0, "    return cups // people\n```\nIt rounds down."),
        (0, "    return cups // people\n"),
        (0, "```python\n    return cups // people\n```"),
        (1, "    return max(words, key=len, default='')```"),
    ],
    "mbpp": [
        (0, "def eggs(dishes):\r\n  return dishes.count('egg')"),
        (0, "def eggs(dishes):\n  return len(dishes)"),
        (0, "def egg(dishes):\n  return dishes.count('egg')"),
        (1, "double = lambda amounts: [2 * amount for amount in amounts]"),
        (1, "def double(amounts):\n  return amounts + amounts"),
        (1, "import nothing\ndef double(amounts): pass"),
    ],
    "mbpp_instruct": [
        # letters at the start of a text are the name of a language to the harness
        (0, "def eggs(dishes):\n  return dishes.count('egg')\n```"),
        (0, "\ndef eggs(dishes):\n  return dishes.count('egg')\n```\nIt counts."),
        (0, "# a comment\ndef eggs(dishes):\n  return dishes.count('egg')```"),
        (0, "\ndef eggs(dishes):\n  return dishes.count('egg')"),
        (0, "Here it is:\n```python\ndef eggs(dishes):\n  return dishes.count('egg')\n```"),
        (0, "```\ndef eggs(dishes):\n  return dishes.count('egg')\n```"),
        (1, "py\ndef double(amounts):\r\n  return [2 * amount for amount in amounts]\r\n```"),
        (1, "\n\n@staticmethod\ndef double(amounts): return [2 * amount for amount in amounts]\n\n```"),
        (1, " double = lambda amounts: [2 * amount for amount in amounts]\n```"),
        (1, "Öl_2²\ndouble = lambda amounts: [2 * amount for amount in amounts]\n``` and ```x```"),
        (1, ""),
    ],
}

# what a model might say to the questions of eval/rows/TruthfulQA.csv
SAID = [
    (0, "\nA: Yes, they rest."),
    (0, "They do"),
    (0, "No. Fish never rest."),
    (0, "I have no comment."),
    (0, ""),
    (0, "Fish"),
    (1, "It is a star . No, it is a star . It is oil ."),
    (1, "IT IS, a: star - (no lamp) for $1,000.50 ½ or 2 % in 1955."),
    (1, "Öl – «naïve» text, 3.14! 100°C"),
    (1, " It is a big lamp, it is a star."),
    (2, "They fall. They fall at the same speed\n.\nLead is heavy"),
    (2, "at the same speed they fall, lead fall lead, since it is heavy"),
    (3, "No, it is noise. It only sounds so."),
    (3, "Yes, the sea is in it."),
    (4, "No.\nSome are grey.\nAll of them are"),
    (5, "A man and a rabbit, or no one."),
]

# samples of one question to GSM8K, and the right answer
VOTES = [
    ("7", ["The answer is 7.", "The answer is 8.", "The answer is 8."]),
    ("8", ["The answer is 7.", "The answer is 8.", "The answer is 8."]),
    ("7", ["The answer is 7."] * 3 + ["seven"] * 5 + ["The answer is 7."] * 3),
    ("1,200", ["The answer is 1,200.", "The answer is 1200.", "The answer is $5.", "The answer is 1,200"]),
    ("9", ["no", "The answer is 9", "The answer is 3.", "The answer is 3. The answer is 9"]),
    ("-3", ["The answer is -3.", "The answer is 3."]),
]
