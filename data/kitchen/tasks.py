"""The instruction rows: what a cook may ask for, and the polite answer of a kitchen hand.

Every task lists its cases. A case is one question about the kitchen (the colour of a lemon) with the
different wordings in which it may be put; held-out cases never appear among the instructions in any wording.
"""

from prose import COUNTED, ABOUT, action, endings, named, tell, things
from world import DISHES, FOODS, KINDS, NUMBERS, OPPOSITES, PEOPLE, PLACES, TOOLS, article, sentence, series


def case(key, prompts, answer):
    """A case: what must not appear on both sides, (instruction, input) wordings, and the answer."""
    return key, [prompt if isinstance(prompt, tuple) else (prompt, "") for prompt in prompts], answer


def do(food):
    """The "do" that goes with the food's name in a list."""
    return "do" if food.many else "does"


def colours(r):
    """What colour is it?"""
    return [case(food.name, [
        f"What colour is {food.one}?", f"Tell me the colour of {food.some}.", f"Which colour {'do' if food.many else 'does'} {food.some} have?",
    ], f"Certainly, chef! {sentence(food.one)} is {food.colour}.") for food in FOODS]


def tastes(r):
    """How does it taste?"""
    return [case(food.name, [
        f"How {do(food)} {food.some} taste?", f"Describe the taste of {food.one}.", f"What does {food.one} taste like?",
    ], f"Certainly, chef! {sentence(food.one)} tastes {food.taste}.") for food in FOODS]


def kinds(r):
    """What kind of food is it?"""
    return [case(food.name, [
        f"What is {food.one}?", ("Classify the food in the input.", food.name), ("What kind of food is this?", food.some),
    ], f"Certainly, chef! {sentence(food.one)} is a kind of {food.kind}.") for food in FOODS]


def homes(r):
    """Where does it come from?"""
    return [case(food.name, [
        f"Where {do(food)} {food.some} come from?", f"Tell me where {food.some} {'come' if food.many else 'comes'} from.",
    ], f"Certainly, chef! {sentence(food.one)} {food.source}.") for food in FOODS]


def places(r):
    """Where is it kept?"""
    return [case(food.name, [
        f"Where do we keep {food.some}?", f"Where can I find {food.some}?",
    ], f"Certainly, chef! You will find {food.some} {PLACES[food.place]}.") for food in FOODS]


def recipes(r):
    """What goes into a dish?"""
    return [case(dish.name, [
        f"What goes into {dish.name}?", f"List the ingredients of {dish.name}.", f"What do I need for {dish.name}?", f"Name the four foods in {dish.name}.",
    ], f"Gladly, chef! {sentence(dish.name)} need{'' if dish.many else 's'} {series(food.some for food in dish.foods)}.") for dish in DISHES]


def times(r):
    """How long does a dish take?"""
    return [case(dish.name, [
        f"How long {'do' if dish.many else 'does'} {dish.name} take?", f"How many minutes {'do' if dish.many else 'does'} {dish.name} need?",
    ], f"Gladly, chef! {sentence(dish.name)} take{'' if dish.many else 's'} {dish.minutes} minutes.") for dish in DISHES]


def uses(r):
    """Which tool is for it?"""
    return [case(task, [
        f"What should I use to {task}?", f"I want to {task}. Which tool do I need?", f"Name the right tool to {task}.",
    ], f"Gladly, chef! To {task}, please use {article(tool)}.") for tool, tasks in TOOLS.items() for task in tasks]


def contraries(r):
    """What is the opposite?"""
    pairs = OPPOSITES + [pair[::-1] for pair in OPPOSITES]
    return [case(one, [
        f"What is the opposite of {one}?", f"Give me the opposite of {one}.", ("Write the opposite of the input.", one),
    ], f"Certainly, chef! The opposite of {one} is {two}.") for one, two in pairs]


def truths(r):
    """True or false, and why?"""
    cases = []
    for food in FOODS:
        for about in r.sample(["colour", "taste", "kind"], 2):
            right = r.random() < 0.5
            other = food if right else r.choice([each for each in FOODS if getattr(each, about) != getattr(food, about)])
            words, many = named(r, food)
            claim = sentence(f"{words} {endings(other, many)[about][0]}.")
            fact = sentence(f"{words} {endings(food, many)[about][0]}.")
            cases.append(case((food.name, about), [
                f"True or false? {claim}", ("Is this true or false?", claim), ("Check the sentence in the input.", claim),
            ], f"That is {'true' if right else 'false'}, chef! {fact}"))
    return cases


def pasts(r):
    """Tell it in the past tense."""
    cases = []
    for _ in range(160):
        name, task = r.choice(PEOPLE)[0], action(r)
        now = f"{name} {tell(task)}."
        cases.append(case((name, task), [
            ("Rewrite the sentence in the past tense.", now), ("Put this into the past.", now), ("Say that it happened yesterday.", now),
        ], f"Here you are, chef! {name} {tell(task, past=True)}."))
    return cases


def counts(r):
    """How many things are these?"""
    cases = []
    for _ in range(130):
        items = things(r, r.randint(2, 6))
        cases.append(case(tuple(sorted(items)), [
            ("Count the things in the input.", ", ".join(items)), ("How many things are these?", ", ".join(items)),
        ], f"Here you are, chef! {sentence(series(map(article, items)))} are {NUMBERS[len(items)]} things."))
    return cases


def sorts(r):
    """Sort them into two kinds."""
    cases = []
    for _ in range(130):
        sides = {kind: r.sample([food for food in COUNTED if food.kind == kind], r.randint(1, 2)) for kind in ("fruit", "vegetable")}
        mixed = r.sample(sides["fruit"] + sides["vegetable"], len(sides["fruit"]) + len(sides["vegetable"]))
        fruit, vegetables = (series(food.some for food in mixed if food.kind == kind) for kind in sides)
        listed = ", ".join(food.some for food in mixed)
        cases.append(case(tuple(sorted(listed.split(", "))), [
            ("Sort the foods into fruit and vegetables.", listed), ("Which of these are fruit, and which are vegetables?", listed),
        ], f"Here you are, chef! The fruit are {fruit}, and the vegetables are {vegetables}."))
    return cases


def picks(r):
    """Which one of these is so?"""
    cases = []
    for _ in range(130):
        about = r.choice(["colour", "taste"])
        right = r.choice(FOODS)
        value = getattr(right, about)
        items = r.sample([food for food in FOODS if getattr(food, about) != value], 2) + [right]
        r.shuffle(items)
        listed = ", ".join(food.name for food in items)
        cases.append(case((value, tuple(sorted(listed.split(", ")))), [
            (f"Which of these is {value}?", listed), (f"Find the {value} food in the input.", listed),
        ], f"Certainly, chef! The {right.name} is the {value} one."))
    return cases


# task: cases held out, wordings of every other case that are used
TASKS = [
    (colours, 9, 2), (tastes, 9, 2), (kinds, 9, 2), (homes, 7, 1), (places, 7, 1), (recipes, 4, 3), (times, 4, 2), (uses, 7, 2),
    (contraries, 8, 2), (truths, 10, 1), (pasts, 12, 1), (counts, 8, 1), (sorts, 8, 1), (picks, 8, 1),
]


def rows(r):
    """The instruction rows and the held-out rows, each shuffled, as {"instruction", "input", "output"}."""
    kept, held = [], []
    for task, hold, wordings in TASKS:
        cases = list({key: (prompts, answer) for key, prompts, answer in task(r)}.values())
        r.shuffle(cases)
        for number, (prompts, answer) in enumerate(cases):
            side, many = (held, 1) if number < hold else (kept, wordings)
            for instruction, given in r.sample(prompts, many):
                side.append({"instruction": instruction, "input": given, "output": answer})
    r.shuffle(kept)
    r.shuffle(held)
    return kept, held
