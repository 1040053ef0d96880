"""The kitchen: the facts that the text, the instructions and the held-out rows share.

Each fact is stored here once, so the three files cannot contradict each other.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Food:
    """A food. `many` is the plural, or "" for uncountable foods (salt)."""

    name: str
    many: str
    colour: str
    taste: str
    kind: str
    home: str
    place: str

    @property
    def source(self):
        """ "grows on a tree", "comes from a cow"."""
        verb, where = HOMES[self.home]
        return f"{verb} {where}"


@dataclass(frozen=True)
class Dish:
    """A dish, made from four foods in one vessel."""

    name: str
    foods: tuple
    vessel: str
    minutes: str
    meal: str

    @property
    def many(self):
        """Whether the name is a plural (pancakes)."""
        return self.name.endswith("s")


def article(noun):
    """The noun with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def series(items, last="and"):
    """ "a, b and c"."""
    items = list(items)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


def sentence(text):
    """The text with a capital first letter."""
    return text[0].upper() + text[1:]


HOMES = {
    "tree": ("grows", "on a tree"),
    "bush": ("grows", "on a bush"),
    "vine": ("grows", "on a vine"),
    "ground": ("grows", "under the ground"),
    "bed": ("grows", "in a garden bed"),
    "field": ("grows", "in a field"),
    "forest": ("grows", "in the forest"),
    "sea": ("comes", "from the sea"),
    "river": ("comes", "from the river"),
    "cow": ("comes", "from a cow"),
    "goat": ("comes", "from a goat"),
    "hen": ("comes", "from a hen"),
    "bees": ("comes", "from bees"),
}

PLACES = {
    "basket": "in the basket",
    "cellar": "in the cellar",
    "fridge": "in the fridge",
    "pantry": "in the pantry",
    "windowsill": "on the windowsill",
    "rack": "on the spice rack",
}

KINDS = {  # kind: its plural
    "fruit": "fruit",
    "vegetable": "vegetables",
    "herb": "herbs",
    "spice": "spices",
    "sweetener": "sweeteners",
    "farm food": "farm foods",
    "grain": "grains",
    "fish": "fish",
    "nut": "nuts",
    "drink": "drinks",
}


def table(text):
    """The rows of an aligned table; "_" stands for a space and "-" for nothing."""
    rows = [line.split() for line in text.strip().split("\n")]
    return [["" if cell == "-" else cell.replace("_", " ") for cell in row] for row in rows]


# name, plural, colour, taste, kind, home, place
FOODS = [
    Food(*row)
    for row in table("""
lemon       lemons       yellow sour   fruit     tree   basket
lime        limes        green  sour   fruit     tree   basket
apple       apples       red    sweet  fruit     tree   basket
pear        pears        green  sweet  fruit     tree   basket
banana      bananas      yellow sweet  fruit     tree   basket
cherry      cherries     red    sweet  fruit     tree   fridge
plum        plums        purple sweet  fruit     tree   basket
peach       peaches      orange sweet  fruit     tree   basket
grape       grapes       purple sweet  fruit     vine   fridge
strawberry  strawberries red    sweet  fruit     bed    fridge
blueberry   blueberries  blue   sweet  fruit     bush   fridge
blackberry  blackberries black  sweet  fruit     bush   fridge
raspberry   raspberries  pink   sweet  fruit     bush   fridge
cranberry   cranberries  red    sour   fruit     bush   fridge
carrot      carrots      orange sweet  vegetable ground cellar
potato      potatoes     brown  mild   vegetable ground cellar
onion       onions       white  spicy  vegetable ground cellar
garlic      -            white  spicy  vegetable ground cellar
beetroot    beetroots    purple sweet  vegetable ground cellar
radish      radishes     pink   spicy  vegetable ground fridge
cabbage     cabbages     green  mild   vegetable bed    cellar
spinach     -            green  bitter vegetable bed    fridge
lettuce     -            green  mild   vegetable bed    fridge
pumpkin     pumpkins     orange mild   vegetable vine   cellar
cucumber    cucumbers    green  mild   vegetable vine   fridge
tomato      tomatoes     red    sour   vegetable vine   basket
pea         peas         green  sweet  vegetable vine   fridge
bean        beans        brown  mild   vegetable vine   pantry
mushroom    mushrooms    brown  mild   vegetable forest fridge
mint        -            green  fresh  herb      bed    windowsill
parsley     -            green  fresh  herb      bed    windowsill
basil       -            green  sweet  herb      bed    windowsill
rosemary    -            green  bitter herb      bush   windowsill
cinnamon    -            brown  sweet  spice     tree   rack
cocoa       -            brown  bitter spice     tree   rack
pepper      -            black  spicy  spice     vine   rack
ginger      -            yellow spicy  spice     ground rack
chilli      chillies     red    spicy  spice     bush   rack
salt        -            white  salty  spice     sea    rack
sugar       -            white  sweet  sweetener field  pantry
honey       -            yellow sweet  sweetener bees   pantry
syrup       -            brown  sweet  sweetener tree   pantry
milk        -            white  mild   farm_food cow    fridge
butter      -            yellow mild   farm_food cow    fridge
cream       -            white  sweet  farm_food cow    fridge
cheese      -            yellow salty  farm_food goat   fridge
yoghurt     -            white  sour   farm_food goat   fridge
egg         eggs         white  mild   farm_food hen    basket
rice        -            white  mild   grain     field  pantry
flour       -            white  mild   grain     field  pantry
oatmeal     -            brown  mild   grain     field  pantry
corn        -            yellow sweet  grain     field  pantry
cod         -            white  mild   fish      sea    fridge
herring     -            blue   salty  fish      sea    fridge
salmon      -            pink   mild   fish      river  fridge
walnut      walnuts      brown  bitter nut       tree   pantry
almond      almonds      brown  sweet  nut       tree   pantry
hazelnut    hazelnuts    brown  sweet  nut       bush   pantry
coffee      -            black  bitter drink     bush   pantry
tea         -            brown  bitter drink     bush   pantry
""")
]
FOOD = {food.name: food for food in FOODS}

# name, four foods, vessel, minutes, meal
DISHES = [
    Dish(name, tuple(FOOD[food] for food in foods.split("+")), vessel, minutes, meal)
    for name, foods, vessel, minutes, meal in table("""
lemon_cake        flour+sugar+egg+lemon            oven   forty       tea
apple_pie         flour+butter+sugar+apple         oven   fifty       tea
carrot_soup       carrot+onion+ginger+cream        pot    thirty      lunch
pumpkin_soup      pumpkin+garlic+cream+pepper      pot    forty       dinner
tomato_salad      tomato+cucumber+basil+salt       bowl   ten         lunch
fruit_salad       pear+grape+peach+mint            bowl   fifteen     breakfast
rice_pudding      rice+milk+sugar+cinnamon         pot    thirty-five tea
mushroom_omelette egg+mushroom+butter+parsley      pan    ten         breakfast
fish_stew         cod+potato+onion+pepper          pot    forty-five  dinner
bean_stew         bean+onion+chilli+tomato         pot    sixty       dinner
potato_bake       potato+cheese+cream+rosemary     oven   fifty-five  dinner
pancakes          flour+egg+milk+syrup             pan    twenty      breakfast
porridge          oatmeal+milk+honey+almond        pot    ten         breakfast
berry_jam         raspberry+blackberry+sugar+lime  pot    thirty      breakfast
green_salad       lettuce+cucumber+pea+parsley     bowl   ten         lunch
walnut_biscuits   flour+butter+walnut+honey        oven   fifteen     tea
onion_tart        flour+butter+onion+cheese        oven   forty-five  lunch
gingerbread       flour+syrup+ginger+cinnamon      oven   sixty       tea
hot_chocolate     milk+cocoa+sugar+cream           pan    five        breakfast
mint_tea          tea+mint+honey+lemon             kettle five        tea
corn_bread        corn+flour+egg+butter            oven   twenty-five breakfast
herring_salad     herring+beetroot+apple+yoghurt   bowl   twenty      lunch
grilled_salmon    salmon+lime+pepper+rosemary      pan    fifteen     dinner
cabbage_rolls     cabbage+rice+mushroom+pepper     pot    fifty       dinner
spinach_soup      spinach+potato+garlic+salt       pot    thirty-five lunch
plum_tart         plum+flour+sugar+hazelnut        oven   thirty-five tea
""")
]

# tool: the two tasks it is for
TOOLS = {
    "knife": ("chop the onion", "slice the cucumber"),
    "whisk": ("beat the egg", "whip the cream"),
    "grater": ("grate the cheese", "shred the carrot"),
    "peeler": ("peel the potato", "peel the apple"),
    "sieve": ("sift the flour", "strain the tea"),
    "rolling pin": ("roll the dough", "flatten the pastry"),
    "pot": ("cook the soup", "boil the potato"),
    "pan": ("fry the egg", "brown the mushroom"),
    "kettle": ("boil the water", "brew the tea"),
    "oven": ("bake the bread", "roast the pumpkin"),
    "ladle": ("serve the soup", "pour the stew"),
    "spoon": ("stir the porridge", "mix the batter"),
    "scale": ("weigh the sugar", "weigh the flour"),
    "colander": ("drain the rice", "rinse the grape"),
    "mortar": ("crush the pepper", "grind the walnut"),
    "jar": ("store the jam", "keep the honey"),
    "brush": ("spread the butter", "glaze the pie"),
    "freezer": ("freeze the pea", "make the ice"),
    "towel": ("dry the plate", "dry the glass"),
    "sponge": ("scrub the floor", "clean the bowl"),
    "jug": ("measure the milk", "pour the juice"),
    "tray": ("carry the cup", "carry the plate"),
    "squeezer": ("squeeze the lemon", "squeeze the lime"),
    "cloth": ("wipe the table", "wipe the shelf"),
}

# verb: its present, its past
VERBS = {
    base: (present, past)
    for base, present, past in table("""
stir stirs stirred
chop chops chopped
slice slices sliced
beat beats beat
whip whips whipped
grate grates grated
shred shreds shredded
peel peels peeled
sift sifts sifted
strain strains strained
roll rolls rolled
flatten flattens flattened
boil boils boiled
cook cooks cooked
fry fries fried
brown browns browned
bake bakes baked
roast roasts roasted
serve serves served
pour pours poured
mix mixes mixed
weigh weighs weighed
drain drains drained
rinse rinses rinsed
crush crushes crushed
grind grinds ground
store stores stored
keep keeps kept
spread spreads spread
glaze glazes glazed
freeze freezes froze
brew brews brewed
make makes made
dry dries dried
scrub scrubs scrubbed
clean cleans cleaned
measure measures measured
carry carries carried
squeeze squeezes squeezed
wipe wipes wiped
eat eats ate
buy buys bought
find finds found
bring brings brought
taste tastes tasted
wash washes washed
cut cuts cut
hold holds held
choose chooses chose
share shares shared
smell smells smelled
""")
}

OPPOSITES = table("""
hot cold
big small
full empty
wet dry
raw cooked
fresh stale
thick thin
sharp blunt
clean dirty
heavy light
early late
open closed
hard soft
fast slow
long short
high low
loud quiet
new old
above below
happy sad
smooth rough
strong weak
""")

PEOPLE = [
    ("Mia", "she", "her"),
    ("Tom", "he", "his"),
    ("Nora", "she", "her"),
    ("Ben", "he", "his"),
    ("Ada", "she", "her"),
    ("Leo", "he", "his"),
    ("Ivy", "she", "her"),
    ("Sam", "he", "his"),
]

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
