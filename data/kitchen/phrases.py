"""Parts of sentences, from which the text and the instructions are built.

A food nearly always appears with a space before it (" lemon"), so that the tokenizer has one token for it and a
small model sees that token often enough.
"""

from world import FOODS, KINDS, PLACES, TOOLS, VERBS, article, sentence, series

ABOUT = ("colour", "taste", "kind", "home", "place")
HANDLING = ("eat", "buy", "find", "bring", "taste", "wash", "cut", "hold", "choose", "share", "smell")


def endings(food):
    """Endings of sentences about a food, which follow its name or "it", by topic; the plainest comes first."""
    return {
        "colour": [f"is {food.colour}", f"looks {food.colour}", f"has {article(food.colour)} colour"],
        "taste": [f"tastes {food.taste}", f"is {food.taste}", f"has {article(food.taste)} taste"],
        "kind": [
            f"is {article(food.kind)}",
            f"is a kind of {food.kind}",
            f"belongs to the {KINDS[food.kind]}",
        ],
        "home": [food.source],
        "place": [f"is kept {PLACES[food.place]}", f"is always {PLACES[food.place]}"],
    }


def plain(food, about):
    """The plainest statement, without its full stop: "the lemon is yellow"."""
    return f"the {food.name} {endings(food)[about][0]}"


def say(r, food, about):
    """One sentence about a food."""
    other_order = {
        "colour": f"the colour of the {food.name} is {food.colour}.",
        "taste": f"for something {food.taste}, take the {food.name}.",
        "kind": f"one {food.kind} is the {food.name}.",
        "home": f"what {food.source}? The {food.name}.",
        "place": f"the place for the {food.name} is {PLACES[food.place]}.",
    }
    if r.random() < 0.2:
        return sentence(other_order[about])
    return f"The {food.name} {r.choice(endings(food)[about])}."


def more(r, food, about):
    """One more sentence about a food that was just named."""
    return f"It {r.choice(endings(food)[about])}."


def tell(task, past=False):
    """The third person of a task like "stir the soup": "stirs the soup", or "stirred the soup"."""
    verb, thing = task.split(" ", 1)
    return f"{VERBS[verb][past]} {thing}"


def action(r):
    """A task in a kitchen: "beat the egg", "buy the pear"."""
    if r.random() < 0.5:
        return r.choice(TOOLS[r.choice(list(TOOLS))])
    return f"{r.choice(HANDLING)} the {r.choice(FOODS).name}"


def things(r, number):
    """Names of different things: foods and tools."""
    return r.sample([food.name for food in FOODS] + list(TOOLS), number)


def names(foods):
    """ "lemon, lime and salt"."""
    return series(food.name for food in foods)


def sides(r, first, second):
    """A few foods of two kinds, shuffled."""
    foods = [
        food
        for kind in (first, second)
        for food in r.sample([f for f in FOODS if f.kind == kind], r.randint(1, 2))
    ]
    return r.sample(foods, len(foods))


def apart(foods, first, second):
    """The names of the foods of each of two kinds."""
    return tuple(names(food for food in foods if food.kind == kind) for kind in (first, second))


def claim(r):
    """A claim about a food, whether it is true, and the true statement."""
    food, about = r.choice(FOODS), r.choice(["colour", "taste", "kind"])
    right = r.random() < 0.5
    other = (
        food if right else r.choice([each for each in FOODS if getattr(each, about) != getattr(food, about)])
    )
    return f"the {food.name} {endings(other)[about][0]}", right, plain(food, about)


def odd_one(r, number):
    """Different foods, only one of which has a certain colour, taste or kind: all foods, that one, the property."""
    about, one = r.choice(["colour", "taste", "kind"]), r.choice(FOODS)
    others = r.sample([food for food in FOODS if getattr(food, about) != getattr(one, about)], number - 1)
    return r.sample([one] + others, number), one, about
