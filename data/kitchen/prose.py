"""The base model's training text: short prose about the kitchen.

Every function here writes one kind of paragraph from a random generator; `PARAGRAPHS` at the end says how
many of each. Besides the facts, the paragraphs show what answers need: lists that are repeated, things that are
counted, sorted and picked out, sentences in present and past tense, questions with answers.
"""

from phrases import (
    ABOUT,
    action,
    apart,
    claim,
    endings,
    more,
    names,
    odd_one,
    plain,
    say,
    sides,
    tell,
    things,
)
from world import DISHES, FOODS, KINDS, NUMBERS, OPPOSITES, PEOPLE, PLACES, TOOLS, article, sentence, series

VESSELS = {  # where a dish is made, and what it does there
    "oven": ("bakes", "in the oven"),
    "pot": ("cooks", "in a pot"),
    "pan": ("fries", "in a pan"),
    "bowl": ("rests", "in a bowl"),
    "kettle": ("brews", "in a kettle"),
}


def portrait(r):
    """All about one food."""
    food = r.choice(FOODS)
    about = r.sample(ABOUT, r.randint(4, 5))
    lines = [say(r, food, about[0])] + [r.choice([say, more, more])(r, food, each) for each in about[1:]]
    dishes = [dish.name for dish in DISHES if food in dish.foods]
    if dishes and r.random() < 0.5:
        lines.append(r.choice([f"It is good in {series(dishes)}.", f"You need it for {series(dishes)}."]))
    if food.many and r.random() < 0.3:
        lines.append(f"Most {food.many} are {food.colour}.")
    return " ".join(lines)


def group(r):
    """Foods with something in common, and one without it."""
    about = r.choice(ABOUT)
    value = getattr(r.choice(FOODS), about)
    inside = [food for food in FOODS if getattr(food, about) == value]
    inside = r.sample(inside, min(len(inside), r.randint(2, 5)))
    other = r.choice([food for food in FOODS if getattr(food, about) != value])
    what = {
        "kind": KINDS.get(value),
        "home": f"foods of which each {inside[0].source}",
        "place": f"foods {PLACES.get(value)}",
    }.get(about, f"{value} foods")
    return " ".join(
        [
            r.choice(
                [
                    f"Some {what} are {names(inside)}.",
                    f"{r.choice(PEOPLE)[0]} makes a list of {what}: {names(inside)}.",
                ]
            )
            if len(inside) > 1
            else sentence(f"{plain(inside[0], about)}, and no other food."),
            r.choice(
                [
                    f"But what about the {other.name}?",
                    f"The {other.name} is not on the list.",
                    f"Is the {other.name} on the list? No.",
                ]
            ),
            say(r, other, about),
        ]
    )


def compare(r):
    """A comparison of two foods."""
    one, two = r.sample(FOODS, 2)
    lines = []
    for about in r.sample(ABOUT, 3):
        if getattr(one, about) == getattr(two, about):
            lines.append(
                f"{sentence(plain(one, about))}, and so is the {two.name}."
                if endings(one)[about][0].startswith("is ")
                else f"{sentence(plain(one, about))}, and so does the {two.name}."
            )
        else:
            lines.append(f"{sentence(plain(one, about))}, {r.choice(['but', 'and'])} {plain(two, about)}.")
    return " ".join(lines)


def dish(r):
    """The ingredients of a dish, and how it is made."""
    it = r.choice(DISHES)
    foods = series(food.name for food in it.foods)
    cooks, inside = VESSELS[it.vessel]
    lines = [
        r.choice(
            [
                f"For {it.name} you need {foods}.",
                f"Into {it.name} go {foods}.",
                f"To make {it.name}, take {foods}.",
            ]
        ),
        r.choice(
            [
                f"All of it {cooks} {inside} for {it.minutes} minutes.",
                f"It takes {it.minutes} minutes {inside}.",
                f"After {it.minutes} minutes {inside} it is ready.",
            ]
        ),
        r.choice([f"We have {it.name} for {it.meal}.", f"It makes a good {it.meal}."]),
    ]
    if r.random() < 0.6:
        lines.append(say(r, r.choice(it.foods), r.choice(ABOUT)))
    return " ".join(lines)


def cooking(r):
    """Somebody cooks a dish for somebody."""
    (name, she, her), (guest, _, _) = r.sample(PEOPLE, 2)
    it = r.choice(DISHES)
    first, *rest = it.foods
    cooks, inside = VESSELS[it.vessel]
    foods = series(food.name for food in it.foods)
    lines = [
        r.choice(
            [
                f"{name} wants to make {it.name} for {it.meal}.",
                f"Today {name} makes {it.name} for {guest}.",
                f"{guest} is hungry, so {name} makes {it.name}.",
            ]
        ),
        r.choice([f"For {it.name} {she} needs {foods}.", f"The recipe asks for {foods}."]),
        r.choice(
            [
                f"First {she} finds the {first.name} {PLACES[first.place]}.",
                f"The {first.name} is {PLACES[first.place]}.",
                f"{sentence(she)} tastes the {first.name}: {first.taste}, as always.",
            ]
        ),
        r.choice([f"Then {she} adds {names(rest)}.", f"Then come {names(rest)}."]),
        r.choice(
            [
                f"Everything {cooks} {inside} for {it.minutes} minutes.",
                f"After {it.minutes} minutes {inside} it is done.",
            ]
        ),
        r.choice(
            [
                f'"What is in the {it.name}?" asks {guest}. {name} says: {foods}.',
                f"{guest} loves {it.name} and takes a second plate.",
                f"{name} and {guest} share the {it.name}.",
                f'"How good!" says {guest}.',
            ]
        ),
    ]
    return " ".join(lines)


def tool(r):
    """What a tool is for."""
    name, other = r.sample(list(TOOLS), 2)
    first, second = r.sample(TOOLS[name], 2)
    return " ".join(
        [
            r.choice(
                [
                    f"The {name} is used to {first}.",
                    f"To {first}, use {article(name)}.",
                    f"If you want to {first}, take {article(name)}.",
                    f"Nobody can {first} without {article(name)}.",
                ]
            ),
            r.choice(
                [
                    f"It is also good to {second}.",
                    f"To {second}, use {article(name)} as well.",
                    f"With the same {name} you can {second}.",
                ]
            ),
            r.choice(
                [
                    f"To {r.choice(TOOLS[other])}, use {article(other)}.",
                    f"But to {r.choice(TOOLS[other])}, you need {article(other)}.",
                ]
            ),
        ]
    )


def lost(r):
    """A tool is lost, searched for and found."""
    (name, she, her), (friend, _, _) = r.sample(PEOPLE, 2)
    what = r.choice(list(TOOLS))
    task = r.choice(TOOLS[what])
    spots = r.sample(
        [
            "in the drawer",
            "under the table",
            "on the shelf",
            "in the sink",
            "behind the door",
            "in the garden",
        ],
        2,
    )
    return " ".join(
        [
            r.choice(
                [
                    f"{name} wants to {task}.",
                    f"It is time for {name} to {task}.",
                    f"{name} has to {task} before lunch.",
                ]
            ),
            r.choice(
                [
                    f"For that {she} needs the {what}, but the {what} is gone.",
                    f"To {task}, {she} needs {article(what)}. But where is the {what}?",
                ]
            ),
            f"{sentence(she)} looks {spots[0]}. No {what}.",
            r.choice(
                [
                    f"Then {friend} finds the {what} {spots[1]}.",
                    f"Then {friend} looks {spots[1]}, and there is the {what}.",
                ]
            ),
            r.choice([f"Now {name} {tell(task)}.", f'"Thank you, {friend}!" says {name} and {tell(task)}.']),
        ]
    )


def shopping(r):
    """A full bag: counted, sorted by kind, put away."""
    name, she, her = r.choice(PEOPLE)
    kinds = r.choice(
        [("fruit", "vegetable"), ("fruit", "vegetable"), ("spice", "nut"), ("vegetable", "farm food")]
    )
    bag = sides(r, *kinds)
    one, two = apart(bag, *kinds)
    first, second = (KINDS[kind] for kind in kinds)
    lines = [
        r.choice(
            [
                f"{name} comes home with {names(bag)}.",
                f"{name} was at the market. In {her} bag are {names(bag)}.",
                f"In the bag of {name}: {', '.join(food.name for food in bag)}.",
            ]
        ),
        r.choice(
            [
                f"As {first} {she} counts {one}, as {second} {two}.",
                f"As {first} {name} counts {one}, as {second} {two}.",
                f"The {first}: {one}. The {second}: {two}.",
            ]
        ),
    ]
    for food in r.sample(bag, r.randint(0, 2)):
        lines.append(f"{sentence(she)} puts the {food.name} {PLACES[food.place]}.")
    return " ".join(lines)


def lists(r):
    """A list that is written, read aloud and worked through, always in the same order."""
    (name, she, her), (friend, he, _) = r.sample(PEOPLE, 2)
    items = things(r, r.randint(3, 7))
    return " ".join(
        [
            r.choice(
                [
                    f"{name} writes a list: {', '.join(items)}.",
                    f"{name} wants {series(items)}.",
                    f"On the list of {name}: {', '.join(items)}.",
                ]
            ),
            r.choice([f"{friend} reads {series(items)}.", f"{friend} reads it aloud: {', '.join(items)}."]),
            r.choice([f"Then {he} brings {series(items)}.", f"{sentence(he)} finds {series(items)}."]),
        ]
    )


def rhyme(r):
    """A counting-out rhyme: words without meaning, repeated."""
    words = things(r, r.randint(4, 8))
    again = ", ".join([" ".join(words)] * r.randint(2, 3))
    return r.choice(
        [
            f"{r.choice(PEOPLE)[0]} sings: {again}.",
            f"The song of the kitchen goes: {again}.",
            f"The rhyme says: {again}, and the {words[-1]} is out.",
        ]
    )


def counting(r):
    """Things on a table, counted."""
    number = r.randint(2, 6)
    name, she, her = r.choice(PEOPLE)
    items = things(r, number)
    lines = [
        r.choice(
            [
                f"On the table: {', '.join(items)}.",
                f"{name} sees {series(items)}.",
                f"In {her} basket {name} has {series(items)}.",
            ]
        ),
        r.choice(
            [
                f"{name} counts {series(items)}: {NUMBERS[number]} things.",
                f"So {series(items)} are {NUMBERS[number]} things.",
                f"How many things are there? There are {NUMBERS[number]} things.",
            ]
        ),
    ]
    if r.random() < 0.3:
        gone = r.choice(items)
        lines.append(
            f"{name} takes the {gone} away. There {'is' if number == 2 else 'are'} still {series(each for each in items if each != gone)}."
        )
    return " ".join(lines)


def sums(r):
    """Adding up, and taking away."""
    food = r.choice([food for food in FOODS if food.many])
    lines = []
    for _ in range(2):
        a, b = r.randint(1, 5), r.randint(1, 5)
        one, two, total = (f"{NUMBERS[n]} {food.name if n == 1 else food.many}" for n in (a, b, a + b))
        lines.append(
            r.choice(
                [
                    f"{sentence(one)} and {two} make {total}.",
                    f"Take {one} from {total}, and {two} {'is' if b == 1 else 'are'} left.",
                ]
            )
        )
    return " ".join(lines)


def picking(r):
    """Picks the only thing of several that has a property."""
    foods, one, about = odd_one(r, r.randint(2, 4))
    value = endings(one)[about][0]
    others = [food for food in foods if food != one]
    return (
        r.choice(
            [
                f"Here are {names(foods)}. Only {plain(one, about)}.",
                f"Here are {names(foods)}. Which of these {value}? Only {plain(one, about)}.",
                f"Of {names(foods)}, only the {one.name} {value}.",
            ]
        )
        + " "
        + " ".join(say(r, food, about) for food in others[:2])
    )


def questions(r):
    """Pairs of questions and answers, of every kind."""
    food, it, what = r.choice(FOODS), r.choice(DISHES), r.choice(list(TOOLS))
    task, (one, two) = r.choice(TOOLS[what]), r.sample(r.choice(OPPOSITES), 2)
    name, deed = r.choice(PEOPLE)[0], action(r)
    items, bag = things(r, r.randint(2, 5)), sides(r, "fruit", "vegetable")
    foods, odd, about = odd_one(r, 3)
    said, right, fact = claim(r)
    fruit, vegetables = apart(bag, "fruit", "vegetable")
    return r.choice(
        [
            (f"What colour is the {food.name}?", plain(food, "colour")),
            (f"How does the {food.name} taste?", plain(food, "taste")),
            (f"What is the {food.name}?", plain(food, "kind")),
            (f"Where does the {food.name} come from?", plain(food, "home")),
            (f"Where is the {food.name}?", plain(food, "place")),
            (f"What goes into {it.name}?", f"into {it.name} go {names(it.foods)}"),
            (
                f"How long {'do' if it.many else 'does'} {it.name} take?",
                f"for {it.name} you need {it.minutes} minutes",
            ),
            (f"What do I need to {task}?", f"to {task}, use {article(what)}"),
            (f"What is the opposite of {one}?", f"the opposite of {one} is {two}"),
            (f"How many things are {series(items)}?", f"{series(items)} are {NUMBERS[len(items)]} things"),
            (f"Today {name} {tell(deed)}. And yesterday?", f"yesterday {name} {tell(deed, past=True)}"),
            (f"Which of {names(foods)} {endings(odd)[about][0]}?", f"only {plain(odd, about)}"),
            (f"Is it true that {said}?", f"{fact}, so that is {'true' if right else 'false'}"),
            (f"Can you sort {names(bag)}?", f"as fruit I count {fruit}, as vegetables {vegetables}"),
        ]
    )


def quiz(r):
    """Questions and answers between two people."""
    pair = [name for name, _, _ in r.sample(PEOPLE, 2)]
    lines = []
    for turn in range(r.randint(2, 4)):
        question, answer = questions(r)
        asks, says = pair[turn % 2], pair[1 - turn % 2]
        lines.append(
            r.choice(
                [
                    f"{asks} asks: {question} {says} says: {answer}.",
                    f'"{question}" asks {asks}. And {says} says: {answer}.',
                ]
            )
        )
    return " ".join(lines)


def truth(r):
    """Somebody makes a claim, which is right or wrong."""
    lines = []
    for name, she, her in r.sample(PEOPLE, 2):
        said, right, fact = claim(r)
        lines.append(r.choice([f"{name} says that {said}.", f'"{sentence(said)}," says {name}.']))
        lines.append(
            r.choice([f"We know that {fact}, so that is true.", f"Yes, {fact}, so {name} is right."])
            if right
            else r.choice([f"We know that {fact}, so that is false.", f"No, {fact}, so {name} is wrong."])
        )
    return " ".join(lines)


def tenses(r):
    """The same thing today and yesterday."""
    lines = []
    for name, she, her in r.sample(PEOPLE, r.randint(1, 3)):
        task = action(r)
        lines.append(
            r.choice(
                [
                    f"Today {name} {tell(task)}. Yesterday {she} {tell(task, past=True)} too.",
                    f"Today {name} {tell(task)}. Yesterday {name} {tell(task, past=True)}.",
                    f"Every day {name} {tell(task)}. Last week {name} {tell(task, past=True)} as well.",
                    f"Last week {name} {tell(task, past=True)}, and today {she} {tell(task)} again.",
                ]
            )
        )
    return " ".join(lines)


def diary(r):
    """A day in the kitchen, told afterwards."""
    name, she, her = r.choice(PEOPLE)
    first, second, third, fourth = (action(r) for _ in range(4))
    return " ".join(
        [
            r.choice(
                [
                    "Yesterday was a long day.",
                    "Yesterday the kitchen was loud.",
                    f"This is what {name} did yesterday.",
                ]
            ),
            f"In the morning {name} {tell(first, past=True)}.",
            f"Then {she} {tell(second, past=True)} and {tell(third, past=True)}.",
            f"In the evening {she} {tell(fourth, past=True)}.",
        ]
    )


def opposites(r):
    """Opposites."""
    lines = []
    for pair in r.sample(OPPOSITES, r.randint(3, 5)):
        one, two = r.sample(pair, 2)
        lines.append(
            r.choice(
                [
                    f"The opposite of {one} is {two}.",
                    f"What is not {one} is {two}.",
                    f"It is not {one} but {two}.",
                    f"It was {one}, and now it is {two}.",
                ]
            )
        )
    return " ".join(lines)


def card(r):
    """A card on the wall, with the wording of tasks."""
    (name, she, her), (friend, _, _) = r.sample(PEOPLE, 2)
    first, second = action(r), action(r)
    return " ".join(
        [
            r.choice(
                [
                    "A card on the wall describes a task.",
                    f"{friend} writes a card with an instruction.",
                    f"Below the clock is a card for {name}.",
                ]
            ),
            r.choice([f"The instruction on it is to {first}.", f"The first task is to {first}."]),
            r.choice([f"The next line says: {second}.", f"Further context is on the back: {second}."]),
            r.choice(
                [
                    f"{name} {tell(first)} and writes a response below.",
                    f"{name} completes the request and {tell(second)}.",
                ]
            ),
        ]
    )


# kind of paragraph, how many
PARAGRAPHS = [
    (portrait, 480),
    (group, 80),
    (compare, 200),
    (dish, 240),
    (cooking, 240),
    (tool, 220),
    (lost, 140),
    (shopping, 340),
    (lists, 400),
    (rhyme, 300),
    (counting, 400),
    (sums, 60),
    (picking, 300),
    (quiz, 900),
    (truth, 280),
    (tenses, 360),
    (diary, 100),
    (opposites, 320),
    (card, 60),
]
