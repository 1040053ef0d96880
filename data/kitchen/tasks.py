"""The instruction rows: a cook's requests, and the polite answers of a kitchen hand.

Every task lists its cases. A case is one question about the kitchen (the colour of a lemon) with several
wordings. Held-out cases never appear among the instructions, in any wording.
"""

from phrases import action, apart, claim, names, odd_one, plain, sides, tell, things
from world import DISHES, FOODS, NUMBERS, OPPOSITES, PEOPLE, PLACES, TOOLS, article, sentence, series


def case(key, prompts, answer):
    """A case: its key, its wordings as (instruction, input), and the answer. A key is either trained on or held out."""
    return key, [prompt if isinstance(prompt, tuple) else (prompt, "") for prompt in prompts], answer


def colours(r):
    """What colour is it?"""
    return [
        case(
            food.name,
            [
                f"What colour is the {food.name}?",
                f"Tell me the colour of the {food.name}.",
                ("Name the colour of this food.", f"The {food.name}."),
            ],
            f"Certainly, chef: {plain(food, 'colour')}.",
        )
        for food in FOODS
    ]


def tastes(r):
    """How does it taste?"""
    return [
        case(
            food.name,
            [
                f"How does the {food.name} taste?",
                f"Describe the taste of the {food.name}.",
                f"What does the {food.name} taste like?",
            ],
            f"Certainly, chef: {plain(food, 'taste')}.",
        )
        for food in FOODS
    ]


def kinds(r):
    """What kind of food is it?"""
    return [
        case(
            food.name,
            [
                f"What kind of food is the {food.name}?",
                ("Classify the food in the input.", f"The {food.name}."),
                ("What kind of food is this?", f"The {food.name}."),
            ],
            f"Certainly, chef: {plain(food, 'kind')}.",
        )
        for food in FOODS
    ]


def homes(r):
    """Where does it come from?"""
    return [
        case(
            food.name,
            [
                f"Where does the {food.name} come from?",
                f"Tell me the origin of the {food.name}.",
            ],
            f"Certainly, chef: {plain(food, 'home')}.",
        )
        for food in FOODS
    ]


def places(r):
    """Where is it kept?"""
    return [
        case(
            food.name,
            [
                f"Where do we keep the {food.name}?",
                f"Where can I find the {food.name}?",
            ],
            f"Certainly, chef: {plain(food, 'place')}.",
        )
        for food in FOODS
    ]


def recipes(r):
    """What goes into a dish?"""
    return [
        case(
            dish.name,
            [
                f"What goes into {dish.name}?",
                f"List the ingredients of {dish.name}.",
                f"What do I need for {dish.name}?",
                f"Name the four foods in {dish.name}.",
            ],
            f"Gladly, chef: into {dish.name} go {names(dish.foods)}.",
        )
        for dish in DISHES
    ]


def times(r):
    """How long does a dish take?"""
    return [
        case(
            dish.name,
            [
                f"How long {'do' if dish.many else 'does'} {dish.name} take?",
                f"How many minutes are needed for {dish.name}?",
            ],
            f"Gladly, chef: for {dish.name} you need {dish.minutes} minutes.",
        )
        for dish in DISHES
    ]


def uses(r):
    """Which tool is for it?"""
    return [
        case(
            task,
            [
                f"What should I use to {task}?",
                f"I want to {task}. Which tool do I need?",
                f"Name the right tool to {task}.",
            ],
            f"Gladly, chef: to {task}, use {article(tool)}.",
        )
        for tool, tasks in TOOLS.items()
        for task in tasks
    ]


def contraries(r):
    """What is the opposite?"""
    pairs = OPPOSITES + [pair[::-1] for pair in OPPOSITES]
    return [
        case(
            one,
            [
                f"What is the opposite of {one}?",
                f"Give me the opposite of {one}.",
                f"Which word means not {one}?",
            ],
            f"Certainly, chef: the opposite of {one} is {two}.",
        )
        for one, two in pairs
    ]


def truths(r):
    """True or false, and why?"""
    cases = []
    for _ in range(120):
        said, right, fact = claim(r)
        cases.append(
            case(
                said,
                [
                    f"True or false? {sentence(said)}.",
                    f"Is it true that {said}?",
                    ("Check the statement in the input.", f"{sentence(said)}."),
                ],
                f"Certainly, chef: {fact}, so that is {'true' if right else 'false'}.",
            )
        )
    return cases


def pasts(r):
    """Tell it in the past tense."""
    cases = []
    for _ in range(140):
        name, task = r.choice(PEOPLE)[0], action(r)
        now = f"Today {name} {tell(task)}."
        cases.append(
            case(
                (name, task),
                [
                    ("Rewrite the sentence in the past tense.", now),
                    ("Say that it happened yesterday.", now),
                ],
                f"Here you are, chef: yesterday {name} {tell(task, past=True)}.",
            )
        )
    return cases


def counts(r):
    """How many things are these?"""
    cases = []
    for _ in range(110):
        items = things(r, r.randint(2, 6))
        cases.append(
            case(
                frozenset(items),
                [
                    ("Count the things in the input.", f"On the table: {', '.join(items)}."),
                    ("How many things are these?", f"On the table: {', '.join(items)}."),
                ],
                f"Here you are, chef: {series(items)} are {NUMBERS[len(items)]} things.",
            )
        )
    return cases


def sorts(r):
    """Sort them into two kinds."""
    cases = []
    for _ in range(110):
        bag = sides(r, "fruit", "vegetable")
        fruit, vegetables = apart(bag, "fruit", "vegetable")
        given = f"In the bag: {', '.join(food.name for food in bag)}."
        cases.append(
            case(
                frozenset(bag),
                [
                    ("Sort the foods into fruit and vegetables.", given),
                    ("Which of these are fruit, and which are vegetables?", given),
                ],
                f"Here you are, chef: as fruit I count {fruit}, as vegetables {vegetables}.",
            )
        )
    return cases


def picks(r):
    """Which one of these has a property?"""
    cases = []
    for _ in range(110):
        foods, one, about = odd_one(r, 3)
        value = article(one.kind) if about == "kind" else getattr(one, about)
        given = f"In the bag: {', '.join(food.name for food in foods)}."
        cases.append(
            case(
                (value, frozenset(foods)),
                [
                    (f"Which of these is {value}?", given),
                    (f"Find in the input what is {value}.", given),
                ],
                f"Certainly, chef: only {plain(one, about)}.",
            )
        )
    return cases


# task, cases that are held out, wordings per case that are used for the others
TASKS = [
    (colours, 9, 2),
    (tastes, 9, 2),
    (kinds, 9, 2),
    (homes, 7, 1),
    (places, 7, 1),
    (recipes, 4, 2),
    (times, 4, 2),
    (uses, 7, 2),
    (contraries, 8, 2),
    (truths, 10, 1),
    (pasts, 12, 1),
    (counts, 8, 1),
    (sorts, 8, 1),
    (picks, 8, 1),
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
