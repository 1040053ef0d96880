"""Rows in the columns and types of the hub's data sets, for `harness.py`: file name without ending, then rows."""

TRUE_AND_FALSE = {
    "choices": ["Bread needs flour", "Bread is made of flour", "Bread grows on trees", "Bread is a fish"],
    "labels": [1, 1, 0, 0],
}


def choices(*texts: str) -> dict:
    return {"text": list(texts), "label": list("ABCDE"[: len(texts)])}


PHYSICS = [
    ("Which cools soup fastest?", choices("a lid", "a spoon of ice", "a candle", "a towel"), "B"),
    ("Ice that melts becomes", choices("steam", "water", "salt"), "B"),
    ("What makes dough rise?", {"text": ["yeast", "sugar", "oil", "rice"], "label": ["1", "2", "3", "4"]}, "1"),
    ("Heat from a stove travels through a pan by", choices("conduction", "sound", "digestion", "erosion"), "A"),
]
ARC = [{"id": f"K_{n}", "question": q, "choices": c, "answerKey": a} for n, (q, c, a) in enumerate(PHYSICS)]
OPEN = [{"id": f"7-{n}", "question_stem": q, "choices": c, "answerKey": a} for n, (q, c, a) in enumerate(PHYSICS)]
PIQA = [
    {"goal": "To peel an egg,", "sol1": "cool it first.", "sol2": "freeze the pan.", "label": 0},
    {"goal": "How do I dry a plate?", "sol1": "Wet it.", "sol2": "Use a “towel”.", "label": 1},
    {"goal": "Sharpen a knife", "sol1": "with a stone", "sol2": "with a sponge", "label": 0},
    {"goal": "Keep bread fresh", "sol1": "in water", "sol2": "in a bag", "label": 1},
]
SIQA = [
    {"context": "Ann baked a cake for Tom.", "question": "How would Tom feel?", "answerA": "glad", "answerB": "like an oven", "answerC": "wet", "label": "1"},
    {"context": "Kim burnt the soup.", "question": "What will Kim want to do next?", "answerA": "sing", "answerB": "cook again", "answerC": "sleep in it", "label": "2"},
    {"context": "Lee sold eggs.", "question": "Why did Lee do this?", "answerA": "to swim", "answerB": "to fly", "answerC": "to earn money", "label": "3"},
]
HELLA = [
    {
        "ind": 4,
        "activity_label": "Baking cookies",
        "ctx_a": "A cook stirs [substeps] the dough.",
        "ctx_b": "then SHE",
        "ctx": "A cook stirs the dough. then SHE",
        "endings": ["puts it  in the oven.", "[title] flies away.", "eats [header] [step] the bowl.", " sings to it. "],
        "source_id": "wikihow~1",
        "split": "val",
        "split_type": "indomain",
        "label": "0",
    },
    {
        "ind": 5,
        "activity_label": "Food and Entertaining",
        "ctx_a": "[header] How to boil an egg [title] Fill a pot.",
        "ctx_b": "",
        "ctx": "[header] How to boil an egg [title] Fill a pot.",
        "endings": ["Add the egg.", "Paint it.", "Sell [it.", "Ask ]the egg."],
        "source_id": "wikihow~2",
        "split": "val",
        "split_type": "zeroshot",
        "label": "2",
    },
    {
        "ind": 6,
        "activity_label": "Toast",
        "ctx_a": "Bread is in the toaster.",
        "ctx_b": "it",
        "ctx": "Bread is in the toaster. it",
        "endings": ["pops up.", "swims.", "reads.", "rains."],
        "source_id": "activitynet~3",
        "split": "train",
        "split_type": "indomain",
        "label": "0",
    },
]
WINO = [
    {"sentence": "Ann gave Sue the spoon because _ had asked for it.", "option1": "Ann", "option2": "Sue", "answer": "2"},
    {"sentence": "The cup fits the shelf, as the _ is small.", "option1": "cup", "option2": "shelf", "answer": "1"},
    {"sentence": "Tom cooked for Ben, so _ was thanked.", "option1": "Tom", "option2": "Ben", "answer": "1"},
]
BOOLQ = [
    {"question": "is bread baked", "passage": "Bread -- Bread is baked in ovens.", "idx": 0, "label": 1},
    {"question": "does soup grow", "passage": "Soup is cooked.", "idx": 1, "label": 0},
    {"question": "are eggs round", "passage": "Eggs are oval.", "idx": 2, "label": 0},
]
TRUTHFUL = [
    {
        "question": "What is bread made of?",
        "mc1_targets": {"choices": ["Flour", "Stone", "Trees"], "labels": [1, 0, 0]},
        "mc2_targets": TRUE_AND_FALSE,
    },
    {
        "question": "Do eggs fly?",
        "mc1_targets": {"choices": ["No", "At night"], "labels": [1, 0]},
        "mc2_targets": {"choices": ["No", "At night"], "labels": [1, 0]},
    },
]
MMLU = [
    {"question": " Where is the stomach? ", "subject": "anatomy", "choices": ["Abdomen", "Foot", "Ear", "Arm"], "answer": 0},
    {"question": "Teeth are", "subject": "anatomy", "choices": ["soft", "hard", "liquid", "gas"], "answer": 1},
    {"question": "The tongue", "subject": "anatomy", "choices": ["sees", "hears", "tastes", "walks"], "answer": 2},
]
NATURAL = [
    {"question": "who bakes bread", "answer": ["a baker", "bakers"]},
    {"question": "where do eggs come from", "answer": ["hens"]},
]
GSM = [
    {"question": "Ann has 3 eggs and buys 4. How many has she?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
    {"question": "A pie of 8 slices loses 2. How many stay?", "answer": "8 - 2 = <<8-2=6>>6\n#### 6"},
    {"question": "5 pans at $200 each?", "answer": "5 * 200 = <<5*200=1000>>1,000\n#### 1,000"},
    {"question": "Half of 10?", "answer": "10 / 2 = 5\n#### 5"},
]


def others(rows: list[dict], count: int = 7) -> list[dict]:
    """More rows than are drawn, of which no two are equal, so that the order of drawing shows."""
    text = next(name for name, value in rows[0].items() if isinstance(value, str) and " " in value)
    return [{**row, text: f"{row[text]}{' again' * (n // len(rows))}"} for n, row in zip(range(count), rows * count)]


# task: the file of its rows, its rows, and the file of its few-shot examples if it has some
HUB = {
    "piqa": ("piqa/data/validation", PIQA[:2], "piqa/data/train", others(PIQA)),
    "social_iqa": ("siqa/data/validation", SIQA, "siqa/data/train", others(SIQA)),
    "hellaswag": ("hellaswag/data/validation", HELLA[:2], "hellaswag/data/train", others(HELLA)),
    "winogrande": ("winogrande_xl/validation", WINO, "winogrande_xl/train", others(WINO)),
    "arc_easy": ("ai2_arc/ARC-Easy/test", ARC, "ai2_arc/ARC-Easy/train", others(ARC)),
    "arc_challenge": ("ai2_arc/ARC-Challenge/test", ARC[:2], "ai2_arc/ARC-Challenge/train", others(ARC, 30)),
    "openbookqa": ("openbookqa/main/test", OPEN[:2], "openbookqa/main/train", others(OPEN)),
    "boolq": ("boolq/validation", BOOLQ, "boolq/train", others(BOOLQ)),
    "truthfulqa_mc1": ("truthful_qa/multiple_choice/validation", TRUTHFUL, None, []),
    "truthfulqa_mc2": ("truthful_qa/multiple_choice/validation", TRUTHFUL, None, []),
    "mmlu_anatomy": ("mmlu/all/test", MMLU[:1], "mmlu/all/dev", MMLU),
    "gsm8k": ("gsm8k/main/test", GSM[:2], "gsm8k/main/train", others(GSM, 30)),
}
