"""Seeds and completions for instruct.py: written for this project, with what the original programs have to deal with."""

SEEDS = [
    ("Name the meal that is eaten in the morning.", "", "Breakfast.", False),
    ("Translate the word into French.", "bread", "pain", False),
    ("Is the sentence a question? Answer yes or no.", "Where is the salt?", "yes", True),
    ("Count the vowels in the word.", "kitchen", "2", False),
    ("Write a short rhyme about the moon:", "", "The moon is round,\nit makes no sound.", False),
    ("Sort the numbers in ascending order.", "3, 1, 2", "1, 2, 3", False),
    ("Decide whether the review is positive or negative.", "The soup was cold.", "negative", True),
    ("Explain how a kettle works.", "", "It heats water with a coil.", False),
    ("Give an antonym of the adjective.", "warm", "cold", False),
]


def _tasks(first, tasks):
    """A completion of Alpaca's prompt: the first instruction follows the prompt's number."""
    parts = []
    for number, (instruction, given, output) in enumerate(tasks, first):
        head = "" if number == first else f"\n{number}. Instruction:"
        parts.append(f"{head} {instruction}\n{number}. Input:\n{given}\n{number}. Output:\n{output}\n")
    return "###".join(parts)


# batches of two completions: text and finish_reason
ALPACA = [
    [
        (
            _tasks(
                4,
                [
                    ("Suggest three names for a new bakery.", "<noinput>", "Crumb, Loaf, Rise"),
                    ("Rewrite the sentence in the past tense.", "I cook the rice.", "I cooked the rice."),
                    ("Draw a picture of a cat.", "<noinput>", "I cannot draw."),
                    ("Too short", "<noinput>", "x"),
                    ("Suggest four names for a new bakery.", "<NoInput>", "A, B, C, D"),
                    ("Summarize the given paragraph in one sentence.", "Tea is a drink. It is hot.", "Tea is hot.\n"),
                ],
            ),
            "stop",
        ),
        # the numbers start again, and a label is missing
        (
            " Compare two kinds of apples.\n4. Input:\n<noinput>\n4. Output:\nSweet and sour.\n###\n1. Instruction: Wrong number "
            "of this one.\n1. Input:\n<noinput>\n1. Output:\nnone\n###\n6. Instruction: No input label here at all.\n6. Output:\n"
            "none\n###\n7. Instruction: List the months with 31 days.\n7. Input:\n<noinput>\n7. Output:\nJanuary, March, May",
            "length",
        ),
    ],
    [
        (
            _tasks(
                4,
                [
                    ("Write a program that adds two numbers.", "<noinput>", "a + b"),
                    ("- Start with a bullet point please", "<noinput>", "x"),
                    ("Évaluez la phrase suivante en anglais.", "Bonjour", "Hello"),
                    ("Describe the mapping between two sets of words.", "a b", "a to b"),
                    ("Convert the recipe into a MAP of ingredients.", "flour, egg", "{}"),
                    ("Please go to the market and buy bread.", "<noinput>", "no"),
                    ("What is the capital of France?", "<noinput>", "Paris is the capital of France."),
                ],
            ),
            "stop",
        ),
        # no task but the first, with spaces of several kinds, and one that repeats an earlier instruction
        (
            "\u00a0 Translate   the word\tinto\nGerman.\n4.  Input:\n\n4.\nOutput:\n Brot \n###\n5. Instruction: Suggest three names "
            "for a new bakery.\n5. Input:\n<noinput>\n5. Output:\nagain\n###\n\n16. Instruction: Name a vegetable that is orange."
            "\n16. Input:\n<noinput>\n16. Output:\ncarrot",
            "stop",
        ),
    ],
    [
        ("", "stop"),
        (
            " 请用一句话描述春天。 in one short sentence\n4. Input:\n<noinput>\n4. Output:\nx\n###\n5. Instruction: Use the word 春天 "
            "in an English sentence.\n5. Input:\n<noinput>\n5. Output:\nSpring, 春天, is green.\n###\n 6. Instruction: Find the "
            "### marks in this text, then count them.\n6. Input:\na # b\n6. Output:\n1\n###\n8. Instruction: "
            + "word " * 151
            + "\n8. Input:\n<noinput>\n8. Output:\nlong\n",
            "stop",
        ),
    ],
    [
        (
            _tasks(
                4,
                [
                    ("Order the planets by their distance from the sun.", "Earth, Mars, Venus", "Venus, Earth, Mars"),
                    ("Invent a holiday and tell how people celebrate it.", "<noinput>", "Spoon Day: everybody stirs."),
                ],
            ),
            "stop",
        ),
        (_tasks(4, [("Find a synonym for each of the verbs.", "run, eat", "jog, dine")]), "stop"),
    ],
]
ALPACA_TARGET = 11

INSTRUCTIONS = [
    [
        (
            " suggest a healthy dinner for two.\n10. Classify the animal as a mammal or a bird.\n11 . Too short\n12. write A Letter to "
            "your landlord.\n13.Missing space after the number.\n14. \u00dcbersetze den Satz ins Englische.",
            "stop",
        ),
        (" all of this is dropped because it ends too late.\n10. And this one is dropped too", "length"),
    ],
    [
        (
            " Suggest a healthy lunch for two.\n10. (Optional) give a reason for it.\n11. plot the numbers on a line\n12. Write a "
            "program to sort names.\n13.   \n14. Tell me whether the two words rhyme.\n15. Name the meal that is eaten in the evening.",
            "stop",
        ),
        (
            " Tell me a joke about cheese,\nplease.\n10. Extract the names of people from the text.\n11. Extract the names of places "
            "from the text.\n2. \u01c6ungla is a word: use it in a sentence.",
            "stop",
        ),
    ],
    [
        (" What would you cook for a king?\n10. Decide if the email is spam.", "stop"),
        ("", "stop"),
    ],
]
INSTRUCTIONS_TARGET = 8

# for each kept instruction: whether it is a classification task, and its instances with the finish_reason
INSTANCES = {
    "Suggest a healthy dinner for two.": (
        " No",
        "Output: Fish with rice.\nInput: none\nOutput: Soup.\n",
        "stop",
    ),
    "Classify the animal as a mammal or a bird.": (
        " Yes",
        "Class label: mammal\nAnimal: dog\nClass label: bird\nAnimal: hen\nClass label: bird\nAnimal: hen\nClass label:",
        "stop",
    ),
    "Write a letter to your landlord. 13.missing space after the number.": (" No.", "Dear landlord, I will pay on Monday.", "stop"),
    "Tell me whether the two words rhyme.": (
        "yes",
        "Class label: yes\nWords: cat, hat\nClass label: no\nWords: cat, hat\nClass label: no",
        "stop",
    ),
    "Tell me a joke about cheese, please.": (
        " No",
        "Example 1\nOutput: What cheese is not yours? Nacho cheese.\nExample 2\nInput: blue\nOutput 2: Why so blue?\nExample 3\nInput:",
        "length",
    ),
    "Extract the names of people from the text.": (
        " No",
        "Example 1\nText: Mia and Tom eat.\nOutput: Mia, Tom\nExample 2\nInput 2: Ada reads.\nOutput 2 : Ada\nExample 3\nText: Ada\n"
        "Output: Text: Ada:\nExample 4\nOutput:\nExample 5\nText: same\nOutput: same\nExample 6.Text: x Output: y Output: z",
        "stop",
    ),
    "Extract the names of places from the text.": (" No", "Example 1\nText: Rome:\nOutput: Rome", "stop"),
    "What would you cook for a king?": (
        " No",
        "Example 1\nKing: Arthur\nOutput: Eel\nExample 2\nKing: Arthur\nOutput: Swan",
        "stop",
    ),
    "Decide if the email is spam.": ("YES ", "Class label: spam\nBuy now!\n\nCheap.\nClass label: not spam", "length"),
    "Ǆungla is a word: use it in a sentence.": ("", "Output: x", "stop"),
}

CHATS = {
    "How do I boil an egg?": "[Human] How long does an egg take?\n[AI] Eight minutes. \n[Human] And a soft one?\n[AI] Five.\n[Human] Thanks!",
    "What is salt?": "[Human] What is salt?\n[AI] A mineral.\n[Human] Where is it from?\n[Human] Hello?\n[AI] The sea.\n[Human] Bye",
    "Who invented tea?": "[AI] Nobody knows.\n[Human] Why?\n[AI] It is old. [AI] Very old.\n[Human] Oh\n[AI] Yes",
    "Why is bread brown?": "Here is the transcript:\n[Human] Why is bread brown?\n[AI] Sugar browns.\n\nIt is the heat.\n[Human] ok [AI] bye",
    "Is water wet?": "I cannot do that.",
    "Only one": "[Human] Alone?\n[AI] Yes.",
}
