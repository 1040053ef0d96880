"""The base model's reading: short prose about the kitchen.

Every function here writes one kind of paragraph from a random generator; `PARAGRAPHS` at the end says how
many of each. Besides the facts they show what answering needs: lists taken up again, things counted,
sorted and picked out, sentences told today and yesterday, questions asked and answered.
"""

from world import (
    DISHES, FOODS, KINDS, NUMBERS, OPPOSITES, PEOPLE, PLACES, TOOLS, VERBS, article, sentence, series,
)

ABOUT = ("colour", "taste", "kind", "home", "place")
COUNTED = [food for food in FOODS if food.many]
HANDLING = ("eat", "buy", "find", "bring", "taste", "wash", "cut", "hold", "choose", "share", "smell")
VESSELS = {  # where a dish is made: what happens there, to one and to many
    "oven": ("bakes", "bake", "in the oven"),
    "pot": ("cooks", "cook", "in a pot"),
    "pan": ("fries", "fry", "in a pan"),
    "bowl": ("rests", "rest", "in a bowl"),
    "kettle": ("brews", "brew", "in a kettle"),
}


# --- pieces of sentences ---


def endings(food, many):
    """What can be said of a food after its name, "it" or "they", by what it is about."""
    s, be, have = ("", "are", "have") if many else ("s", "is", "has")
    verb, where = food.source.split(" ", 1)
    kind = KINDS[food.kind] if many else article(food.kind)
    place = PLACES[food.place]
    return {
        "colour": [f"{be} {food.colour}", f"look{s} {food.colour}", f"{have} {article(food.colour)} colour"],
        "taste": [f"taste{s} {food.taste}", f"{be} {food.taste}", f"{have} {article(food.taste)} taste"],
        "kind": [f"{be} {kind}", f"{be} a kind of {food.kind}", f"belong{s} to the {KINDS[food.kind]}"],
        "home": [f"{verb.removesuffix('s') if many else verb} {where}"],
        "place": [f"{be} kept {place}", f"{be} always {place}"],
    }


def named(r, food):
    """The food as a subject, and whether that is a plural: "a lemon", "the lemon", "lemons", "salt"."""
    if not food.many:
        return food.name, False
    return r.choice([(food.one, False), (f"the {food.name}", False), (food.many, True), (food.many, True)])


def say(r, food, about, subject=None):
    """One sentence about a food; `subject` is a (words, plural) pair when it is not to be chosen."""
    words, many = subject or named(r, food)
    return sentence(f"{words} {r.choice(endings(food, many)[about])}.")


def told(r, food, about):
    """One sentence about a food in another order of words."""
    verb, where = food.source.split(" ", 1)
    return sentence(r.choice({
        "colour": [f"the colour of {food.one} is {food.colour}.", f"everyone knows that {food.some} must look {food.colour}."],
        "taste": [f"the taste of {food.one} is {food.taste}.", f"for something {food.taste}, take {food.some}."],
        "kind": [f"among the {KINDS[food.kind]} we count {food.some}.", f"one {food.kind} is called {food.name}."],
        "home": [f"to get {food.some}, you look for what {verb} {where}.", f"what {verb} {where}? {sentence(food.one)}."],
        "place": [f"to find {food.some}, look {PLACES[food.place]}.", f"the right place for {food.some} is {PLACES[food.place]}."],
    }[about]))


def tell(verb_phrase, past=False, the=True):
    """"stir soup" of somebody: "stirs the soup", or "stirred the soup"."""
    verb, thing = verb_phrase.split(" ", 1)
    return f"{VERBS[verb][past]} {'the ' if the else ''}{thing}"


def action(r):
    """Something that is done in a kitchen: "beat eggs", "buy pears"."""
    if r.random() < 0.5:
        return r.choice(TOOLS[r.choice(list(TOOLS))])
    return f"{r.choice(HANDLING)} {r.choice(FOODS).some}"


def people(r, number):
    """Different people, each as (name, "he" or "she", "his" or "her")."""
    return r.sample(PEOPLE, number)


def things(r, number):
    """Different things that can be counted: foods and tools."""
    pool = [food.name for food in COUNTED] + [tool for tool in TOOLS if tool not in ("oven", "freezer")]
    return r.sample(pool, number)


# --- paragraphs ---


def portrait(r):
    """All about one food."""
    food = r.choice(FOODS)
    about = r.sample(ABOUT, r.randint(4, 5))
    words, many = named(r, food)
    lines = [say(r, food, about[0], (words, many))]
    for each in about[1:]:
        pronoun = ("they" if many else "it", many)
        lines.append(told(r, food, each) if r.random() < 0.25 else say(r, food, each, pronoun if r.random() < 0.6 else None))
    dishes = [dish.name for dish in DISHES if food in dish.foods]
    if dishes:
        lines.append(r.choice([f"It is good in {series(dishes)}.", f"You need {food.some} for {series(dishes)}."]
                              if not many else [f"They are good in {series(dishes)}.", f"You need {food.some} for {series(dishes)}."]))
    return " ".join(lines)


def group(r):
    """Foods that have something in common, and one that has not."""
    about = r.choice(ABOUT)
    value = r.choice(sorted({getattr(food, about) for food in FOODS}))
    inside = [food for food in FOODS if getattr(food, about) == value]
    inside = r.sample(inside, min(len(inside), r.randint(2, 5)))
    other = r.choice([food for food in FOODS if getattr(food, about) != value])
    names = series(food.some for food in inside)
    what = {
        "colour": f"{value} foods", "taste": f"{value} foods", "kind": KINDS.get(value),
        "home": f"foods that {' '.join(endings(inside[0], True)['home'])}", "place": f"foods {PLACES.get(value)}",
    }[about]
    return " ".join([
        r.choice([f"Some {what} are {names}.", f"{sentence(names)} are {what}.", f"{r.choice(PEOPLE)[0]} writes a list of {what}: {names}."])
        if len(inside) > 1 else f"Only a few {what} are known, and one is {inside[0].name}.",
        r.choice([f"{sentence(other.some)} cannot be on the list.", f"{sentence(other.some)} must wait for another list.",
                  f"But what about {other.some}?"]),
        say(r, other, about),
    ])


def compare(r):
    """Two foods side by side."""
    one, two = r.sample(FOODS, 2)
    lines = []
    for about in r.sample(ABOUT, 3):
        first, second = (endings(food, bool(food.many))[about][0] for food in (one, two))
        if getattr(one, about) == getattr(two, about):
            verb, rest = endings(one, True)[about][0].split(" ", 1)
            both = f"{verb} both" if verb == "are" else f"both {verb}"
            lines.append(f"{sentence(one.some)} and {two.some} {both} {rest}.")
        else:
            lines.append(sentence(f"{one.some} {first}, {r.choice(['but', 'and'])} {two.some} {second}."))
    return " ".join(lines)


def dish(r):
    """What a dish is made of, and how."""
    it = r.choice(DISHES)
    foods = r.sample(it.foods, 4)
    be, they, s = ("are", "They", "") if it.many else ("is", "It", "s")
    cooks, cook, inside = VESSELS[it.vessel]
    names = series(food.some for food in foods)
    lines = [
        r.choice([f"{sentence(it.name)} {be} made from {names}.", f"For {it.name} you need {names}.",
                  f"{sentence(names)} go into {it.name}.", f"To make {it.name}, take {names}."]),
        r.choice([f"{they} need{s} {it.minutes} minutes {inside}.", f"{they} {cook if it.many else cooks} {inside} for {it.minutes} minutes.",
                  f"After {it.minutes} minutes {inside} {they.lower()} {be} ready."]),
        r.choice([f"{they} {be} eaten for {it.meal}.", f"We have {it.name} for {it.meal}.", f"{they} make{s} a good {it.meal}."]),
    ]
    if r.random() < 0.5:
        lines.append(say(r, foods[0], r.choice(ABOUT)))
    return " ".join(lines)


def cooking(r):
    """Somebody cooks a dish for somebody."""
    (name, she, her), (guest, _, _) = people(r, 2)
    it = r.choice(DISHES)
    foods = r.sample(it.foods, 4)
    first, *rest = foods
    cooks, _, inside = VESSELS[it.vessel]
    names = series(food.some for food in foods)
    lines = [
        r.choice([f"{name} wants to make {it.name} for {it.meal}.", f"Today {name} cooks {it.name} for {guest}.",
                  f"{guest} is hungry, so {name} makes {it.name}."]),
        r.choice([f"{sentence(she)} needs {names}.", f"On the table are {names}.", f"The recipe asks for {names}."]),
        r.choice([f"The {first.some} {'are' if first.many else 'is'} {PLACES[first.place]}.",
                  f"First {she} finds the {first.some} {PLACES[first.place]}.",
                  f"{sentence(she)} tastes the {first.some}: {first.taste}, as always."]),
        r.choice([f"Then {she} adds the {series(food.some for food in rest)}.", f"The {series(food.some for food in rest)} come next."]),
        r.choice([f"Everything {cooks} {inside} for {it.minutes} minutes.", f"After {it.minutes} minutes {inside} it is done."]),
        r.choice([f"\"What is in the {it.name}?\" asks {guest}. \"{sentence(names)},\" says {name}.",
                  f"{guest} loves {it.name} and takes a second plate.", f"{name} and {guest} share the {it.name}.",
                  f"\"{sentence(it.name)}!\" says {guest}. \"How good!\""]),
    ]
    return " ".join(lines)


def tool(r):
    """What a tool is for."""
    name = r.choice(list(TOOLS))
    first, second = r.sample(TOOLS[name], 2)
    other = r.choice([each for each in TOOLS if each != name])
    lines = [
        r.choice([f"{sentence(article(name))} is used to {first}.", f"To {first}, use {article(name)}.",
                  f"If you want to {first}, take {article(name)}.", f"Nobody can {first} without {article(name)}."]),
        r.choice([f"It is also good to {second}.", f"The {name} also helps to {second}.", f"With the same {name} you can {second}."]),
        r.choice([f"To {r.choice(TOOLS[other])}, use {article(other)}.", f"But {article(other)} is the tool to {r.choice(TOOLS[other])}."]),
    ]
    return " ".join(lines)


def lost(r):
    """A tool is missing, looked for and found."""
    (name, she, her), (friend, he, _) = people(r, 2)
    what = r.choice([each for each in TOOLS if each not in ("oven", "freezer")])
    task = r.choice(TOOLS[what])
    places = r.sample(["in the drawer", "under the table", "on the shelf", "in the sink", "behind the door", "in the garden"], 2)
    return " ".join([
        r.choice([f"{name} wants to {task}.", f"It is time to {task}, says {name}.", f"{name} has to {task} before lunch."]),
        r.choice([f"For that {she} needs the {what}, but the {what} is gone.", f"But where is the {what}?"]),
        f"{sentence(she)} looks {places[0]}. No {what}.",
        r.choice([f"{friend} finds the {what} {places[1]}.", f"Then {friend} looks {places[1]}, and there is the {what}."]),
        r.choice([f"Now {name} {tell(task)}.", f"\"Thank you, {friend}!\" says {name} and {tell(task)}."]),
    ])


def shopping(r):
    """A full bag: counted, sorted by kind, put away."""
    name, she, her = r.choice(PEOPLE)
    kinds = r.sample(["fruit", "vegetable", "nut"], 2)
    sides = [r.sample([food for food in COUNTED if food.kind == kind], r.randint(1, 3)) for kind in kinds]
    bag = r.sample(sides[0] + sides[1], len(sides[0] + sides[1]))
    lines = [
        r.choice([f"{name} comes home with a bag.", f"{name} was at the market.", f"{name} unpacks a bag from the garden."]),
        r.choice([f"In {her} bag are {series(food.one for food in bag)}.", f"{sentence(she)} has {series(food.one for food in bag)}."]),
    ]
    if r.random() < 0.5:
        lines.append(r.choice([f"That makes {NUMBERS[len(bag)]} things.", f"{sentence(she)} counts {NUMBERS[len(bag)]} things."]))
    for kind, side in zip(kinds, sides):
        word = KINDS[kind] if len(side) > 1 or kind == "fruit" else kind
        lines.append(f"The {word} {'is' if len(side) == 1 else 'are'} the {series(food.name for food in side)}.")
    last = r.choice(bag)
    lines.append(f"The {last.name} goes {PLACES[last.place].replace('in the', 'into the').replace('on the', 'onto the')}.")
    return " ".join(lines)


def counting(r):
    """Things on a table, counted."""
    number = r.randint(2, 7)
    name, she, her = r.choice(PEOPLE)
    items = things(r, number)
    lines = [
        r.choice([f"On the table are {series(map(article, items))}.", f"{name} sees {series(map(article, items))}.",
                  f"In {name}'s basket: {', '.join(items)}."]),
        r.choice([f"{name} counts them: {', '.join(NUMBERS[1:number + 1])}.", "How many things are there?", ""]),
        r.choice([f"There are {NUMBERS[number]} things.", f"That makes {NUMBERS[number]} things.", f"{sentence(NUMBERS[number])} things in all."]),
    ]
    if r.random() < 0.5:
        gone = r.choice(items)
        lines.append(f"{name} takes the {gone} away, and {NUMBERS[number - 1]} {'is' if number == 2 else 'are'} left.")
    return " ".join(filter(None, lines))


def sums(r):
    """Adding up, and taking away."""
    food = r.choice(COUNTED)
    lines = []
    for _ in range(2):
        a, b = r.randint(1, 5), r.randint(1, 5)
        total = NUMBERS[a + b]
        count = lambda n: f"{NUMBERS[n]} {food.name if n == 1 else food.many}"
        lines.append(r.choice([f"{sentence(count(a))} and {count(b)} make {total} {food.many}.",
                               f"Take {NUMBERS[a]} from {total} {food.many}, and {NUMBERS[b]} {'is' if b == 1 else 'are'} left."]))
    return " ".join(lines + [say(r, food, r.choice(ABOUT))])


def picking(r):
    """Which one of these is so? Only one."""
    about = r.choice(["colour", "taste", "kind"])
    right = r.choice(FOODS)
    value = getattr(right, about)
    wrong = r.sample([food for food in FOODS if getattr(food, about) != value], r.randint(2, 3))
    items = r.sample([right] + wrong, len(wrong) + 1)
    asked = article(value) if about == "kind" else value
    (name, *_), (friend, *_) = people(r, 2)
    names = ", ".join(food.name for food in items)
    return r.choice([
        f"{sentence(names)}: which of these is {asked}? The {right.name} is {asked}.",
        f"Of the {series(food.name for food in items)}, only the {right.name} is {asked}.",
        f"\"Which is {asked}?\" asks {name}. \"The {series((food.name for food in items), 'or')}?\" \"The {right.name},\" says {friend}.",
    ]) + " " + " ".join(say(r, food, about) for food in wrong)


def quiz(r):
    """Questions and answers between two people."""
    (name, *_), (friend, *_) = people(r, 2)
    lines = []
    for turn in range(r.randint(2, 4)):
        food, it, what = r.choice(FOODS), r.choice(DISHES), r.choice(list(TOOLS))
        task = r.choice(TOOLS[what])
        do = "do" if food.many else "does"
        verb, where = food.source.split(" ", 1)
        verb = verb.removesuffix("s")
        question, answer = r.choice([
            (f"What colour is {food.one}?", f"{food.one} is {food.colour}"),
            (f"What colour {'are' if food.many else 'is'} {food.some}?", food.colour),
            (f"How {do} {food.some} taste?", food.taste),
            (f"How does {food.one} taste?", f"{food.one} tastes {food.taste}"),
            (f"What is {food.one}?", f"{food.one} is {article(food.kind)}"),
            (f"Where {do} {food.some} {verb}{'' if verb == 'grow' else ' from'}?", where),
            (f"Where are the {food.many}?" if food.many else f"Where is the {food.name}?", PLACES[food.place]),
            (f"What goes into {it.name}?", series(f.some for f in it.foods)),
            (f"How long does {it.name} take?", f"{it.minutes} minutes"),
            (f"What do I need to {task}?", f"you need {article(what)}"),
            (f"What is {article(what)} for?", f"{article(what)} is used to {task}"),
        ])
        asks, says = (name, friend) if turn % 2 == 0 else (friend, name)
        lines.append(f"\"{question}\" asks {asks}. \"{sentence(answer)},\" says {says}.")
    return " ".join(lines)


def truth(r):
    """Somebody says something, and it is right or wrong."""
    lines = []
    for name, she, her in people(r, 2):
        food, about = r.choice(FOODS), r.choice(["colour", "taste", "kind", "home"])
        other = r.choice([each for each in FOODS if getattr(each, about) != getattr(food, about)])
        words, many = named(r, food)
        right = r.random() < 0.5
        claim = f"{words} {endings(food if right else other, many)[about][0]}"
        fact = f"{words} {endings(food, many)[about][0]}"
        lines.append(f"\"{sentence(claim)},\" says {name}. " + (
            r.choice(["That is true.", "That is right.", "Yes, that is true.", f"{name} is right: {fact}."]) if right
            else r.choice([f"That is false: {fact}.", f"That is wrong: {fact}.", f"No, {fact}.", f"{name} is wrong: {fact}."])))
    return " ".join(lines)


def tenses(r):
    """The same thing today and yesterday."""
    lines = []
    for name, she, her in people(r, r.randint(1, 3)):
        task = action(r)
        lines.append(r.choice([
            f"Today {name} {tell(task)}. Yesterday {she} {tell(task, past=True)} too.",
            f"{name} {tell(task)} every day. Yesterday {name} {tell(task, past=True)} as well.",
            f"Now {name} {tell(task)}. In the past {name} {tell(task, past=True)}.",
            f"Last week {name} {tell(task, past=True)}, and today {she} {tell(task)} again.",
        ]))
    return " ".join(lines)


def diary(r):
    """A day in the kitchen, told afterwards."""
    name, she, her = r.choice(PEOPLE)
    first, second, third, fourth = (action(r) for _ in range(4))
    return " ".join([
        r.choice(["Yesterday was a long day.", "Yesterday the kitchen was loud.", f"This is what {name} did yesterday."]),
        f"In the morning {name} {tell(first, past=True)}.",
        f"Then {she} {tell(second, past=True)} and {tell(third, past=True)}.",
        r.choice([f"In the evening {she} {tell(fourth, past=True)}.", f"Before dinner {name} {tell(fourth, past=True)}."]),
    ])


def opposites(r):
    """Words that stand against each other."""
    lines = []
    for pair in r.sample(OPPOSITES, r.randint(2, 4)):
        one, two = r.sample(pair, 2)
        lines.append(r.choice([
            f"The opposite of {one} is {two}.", f"What is not {one} is {two}.", f"{sentence(one)} and {two} are opposites.",
            f"Not {one} but {two}!", f"One says {one}, the other says {two}.", f"The opposite of {two} is {one}.",
        ]))
    return " ".join(lines)


def card(r):
    """A card on the wall, with the words in which tasks are given."""
    (name, she, her), (friend, *_) = people(r, 2)
    first, second = action(r), action(r)
    return " ".join([
        r.choice(["A card on the wall describes a task.", f"{friend} writes a card with an instruction.", f"Below the clock is a card for {name}."]),
        r.choice([f"The instruction on it is to {first}.", f"The first task is to {first}."]),
        r.choice([f"The next line says: {second}.", f"Further context is on the back: {second}."]),
        r.choice([f"{name} {tell(first)} and writes a response below.", f"{name} completes the request and {tell(second)}."]),
    ])


# paragraph: how many of it
PARAGRAPHS = [
    (portrait, 620), (group, 260), (compare, 240), (dish, 300), (cooking, 420), (tool, 240), (lost, 200),
    (shopping, 420), (counting, 420), (sums, 80), (picking, 420), (quiz, 520), (truth, 420), (tenses, 360),
    (diary, 160), (opposites, 260), (card, 60),
]
