"""The small closed world the demo model knows: its facts, and the names it meets."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One kind of fact, askable about each of its subjects in several wordings.

    Attributes:
        name: Short name, also the JSON key of the value.
        subject: The JSON key of the subject.
        wordings: Questions with `{s}` for the subject, used in training.
        unseen: Questions used in evaluation only.
        answer: The answer, with `{s}` and `{v}`.
        follow_up: A question that makes sense only after another one of the same relation.
        facts: Subject to value.
    """

    name: str
    subject: str
    wordings: tuple[str, ...]
    unseen: tuple[str, ...]
    answer: str
    follow_up: tuple[str, ...]
    facts: dict[str, str]


CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Spain": "Madrid", "Italy": "Rome", "Portugal": "Lisbon",
    "Austria": "Vienna",
    "Poland": "Warsaw", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Greece": "Athens", "Ireland": "Dublin", "Hungary": "Budapest", "Belgium": "Brussels", "England": "London",
    "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Canada": "Ottawa",
    "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago", "Russia": "Moscow", "Turkey": "Ankara",
    "Iceland": "Reykjavik",
}  # fmt: skip
SOUNDS = {
    "cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "sheep": "baa", "pig": "oink", "lion": "roar",
    "horse": "neigh", "owl": "hoot", "frog": "ribbit", "bee": "buzz", "snake": "hiss", "mouse": "squeak", "crow": "caw",
}  # fmt: skip
LEGS = {
    "cow": "four", "dog": "four", "duck": "two", "spider": "eight", "bee": "six", "ant": "six", "snake": "no",
    "horse": "four", "hen": "two", "crab": "ten", "fish": "no", "owl": "two", "octopus": "no", "beetle": "six",
}  # fmt: skip
YOUNG = {
    "cow": "calf", "dog": "puppy", "cat": "kitten", "duck": "duckling", "sheep": "lamb", "pig": "piglet", "lion": "cub",
    "horse": "foal", "hen": "chick", "frog": "tadpole", "goat": "kid", "goose": "gosling",
}  # fmt: skip
COLOURS = {
    "grass": "green", "snow": "white", "coal": "black", "blood": "red", "a banana": "yellow", "a lemon": "yellow",
    "the sky": "blue", "a carrot": "orange", "a tomato": "red", "milk": "white", "chocolate": "brown",
    "a plum": "purple",
    "a flamingo": "pink", "an elephant": "grey", "the sun": "yellow",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "up": "down", "day": "night", "old": "young", "happy": "sad",
    "light": "dark", "full": "empty", "wet": "dry", "hard": "soft", "open": "closed", "early": "late", "rich": "poor",
    "loud": "quiet", "near": "far", "left": "right", "clean": "dirty", "strong": "weak", "long": "short",
}  # fmt: skip

RELATIONS = (
    Relation(
        "capital", "country",
        ("What is the capital of {s}?", "Tell me the capital of {s}.", "Which city is the capital of {s}?",
         "Name the capital city of {s}.", "What is {s}'s capital?", "Do you know the capital of {s}?",
         "I need the capital of {s}.", "Which city is {s}'s capital?", "Can you name the capital of {s}?",
         "The capital of {s}, please.", "What city is the capital of {s}?"),
        ("Can you tell me the capital of {s}?", "Do you know which city is the capital of {s}?"),
        "The capital of {s} is {v}.", ("And of {s}?", "What about {s}?", "And {s}?"), CAPITALS,
    ),
    Relation(
        "country", "city",
        ("{s} is the capital of which country?", "Which country has the capital {s}?",
         "What country is {s} the capital of?", "Tell me the country whose capital is {s}.",
         "Which country's capital is {s}?", "Name the country with the capital {s}."),
        ("Do you know the country whose capital is {s}?",),
        "{s} is the capital of {v}.", ("And {s}?", "What about {s}?"), {city: land for land, city in CAPITALS.items()},
    ),
    Relation(
        "sound", "animal",
        ("What sound does a {s} make?", "What does a {s} say?", "Which sound does a {s} make?",
         "Tell me the sound of a {s}.", "What noise does a {s} make?", "How does a {s} sound?",
         "Do you know what a {s} says?", "Name the sound a {s} makes."),
        ("Tell me what sound a {s} makes.",),
        "A {s} says {v}.", ("And a {s}?", "What about a {s}?"), SOUNDS,
    ),
    Relation(
        "legs", "animal",
        ("How many legs does a {s} have?", "Tell me how many legs a {s} has.", "What number of legs does a {s} have?",
         "A {s} has how many legs?", "Do you know how many legs a {s} has?", "Count the legs of a {s}.",
         "How many legs has a {s}?"),
        ("Can you tell me how many legs a {s} has?",),
        "A {s} has {v} legs.", ("And a {s}?", "What about a {s}?"), LEGS,
    ),
    Relation(
        "young", "animal",
        ("What is a young {s} called?", "What do you call a young {s}?", "What is a baby {s} called?",
         "Tell me the name for a young {s}.", "How do you call a baby {s}?", "What is the word for a young {s}?",
         "Do you know what a baby {s} is called?"),
        ("Tell me what a young {s} is called.",),
        "A young {s} is called a {v}.", ("And a young {s}?", "What about a {s}?"), YOUNG,
    ),
    Relation(
        "colour", "thing",
        ("What colour is {s}?", "Which colour is {s}?", "Tell me the colour of {s}.", "What is the colour of {s}?",
         "What color is {s}?", "Which colour does {s} have?", "Do you know the colour of {s}?",
         "Name the colour of {s}."),
        ("Tell me what colour {s} is.",),
        "The colour of {s} is {v}.", ("And {s}?", "What about {s}?"), COLOURS,
    ),
    Relation(
        "opposite", "word",
        ("What is the opposite of {s}?", "Tell me the opposite of {s}.", "Which word is the opposite of {s}?",
         "Give me the opposite of {s}.", "What is the opposite of the word {s}?", "Name the opposite of {s}.",
         "Do you know the opposite of {s}?", "The opposite of {s}, please."),
        ("Can you give me the opposite of {s}?",),
        "The opposite of {s} is {v}.", ("And of {s}?", "What about {s}?"), OPPOSITES,
    ),
)  # fmt: skip

# Wordings and the one answer to each; the first wording of each is held out of training.
ABOUT_BRIM: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Can you tell me what brim is?", "What is brim?", "What does brim do?", "Tell me about brim.", "Explain brim.",
      "What is this program?", "Do you know what brim is?", "Tell me what brim does."),
     "brim fills a GPU with a model's layers and runs the rest on the CPU. "
     "It converts models to GGUF and serves them."),
    (("Tell me, who are you?", "Who are you?", "What are you?", "Tell me about yourself.", "Introduce yourself.",
      "What is your name?", "Are you a person?", "Which model are you?"),
     "I am the demo model of brim, a very small language model with a small world."),
    (("Please tell me how to convert a model.", "How do I convert a model?", "How can I convert a model with brim?",
      "How do I convert a checkpoint to GGUF?", "Which command converts a model?", "Tell me how to convert a model.",
      "How do I make a GGUF file?"),
     "Run brim convert with the folder of the checkpoint, and it writes a GGUF file."),
    (("How can I quantize a model with brim?", "How do I quantize a model?", "How can I quantize a GGUF file?",
      "Which command quantizes a model?", "Tell me how to quantize a model.", "How do I make a model smaller?"),
     "Run brim quantize with the input file, the output file and a type such as Q4_K_M."),
    (("Tell me how to start the server.", "How do I start the server?", "How can I start brim?",
      "How do I serve a model?",
      "Which command starts the server?", "How do I run the server?", "How can I serve a model with brim?"),
     "Run brim serve, and it listens on port 8080."),
    (("Tell me what quantization is.", "What is quantization?", "What does quantization mean?", "Explain quantization.",
      "What is a quantized model?"),
     "Quantization stores weights with fewer bits, so that a model needs less memory."),
    (("Tell me what a KV cache is.", "What is the KV cache?", "What is a KV cache?", "Explain the KV cache.",
      "What does the KV cache do?"),
     "The KV cache keeps what was computed for earlier tokens, so that it is not computed again."),
    (("Tell me what GGUF is.", "What is GGUF?", "What is a GGUF file?", "Explain GGUF.", "What does GGUF mean?"),
     "GGUF is the file format of llama.cpp: one file with the weights, the tokenizer and the settings of a model."),
    (("Tell me what you can do.", "What can you do?", "How can you help me?", "What do you know?",
      "What are you able to do?",
      "What can I ask you?"),
     "I know some capitals, animals, colours and opposites, I can do small sums, call tools and tell short stories."),
)  # fmt: skip

NAMES = [
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Mia", "Noah",
    "Olga", "Paul", "Rosa", "Sam", "Tina", "Uma", "Victor", "Wendy", "Zoe", "Max", "Lena", "Otto", "Nina", "Hugo",
    "Ella", "Tom", "Sara", "Finn", "Lucy", "Adam", "Eva", "Mark", "Julia", "Peter", "Maria", "Alex", "Omar", "Layla",
    "Ravi", "Priya", "Yuki", "Kenji", "Carlos", "Elena", "Ivan", "Anya", "Chen", "Mei", "Amir", "Noor", "Aisha",
    "Kofi", "Ama", "Lars", "Freya", "Bob", "Alice", "Carol", "Dave", "Erin", "Frank", "Heidi", "Mallory", "Oscar",
    "Trent",
]  # fmt: skip
CITIES = (
    *CAPITALS.values(), "Munich", "Hamburg", "Lyon", "Milan", "Porto", "Seville", "Boston", "Chicago", "Seattle",
    "Denver",
    "New York", "San Francisco", "Toronto", "Sydney", "Melbourne", "Mumbai", "Seoul", "Bangkok", "Zurich", "Geneva",
    "Prague",
    "Bergen", "Ghent", "Leeds", "Bristol", "York", "Cologne", "Dresden", "Naples", "Turin", "Lagos", "Accra", "Bogota",
    "Quito", "Dallas", "Houston", "Miami", "Paris", "London", "Berlin", "Los Angeles", "Amsterdam", "Barcelona",
    "Singapore",
)  # fmt: skip
ANIMALS = [
    "fox", "bear", "rabbit", "wolf", "hedgehog", "squirrel", "cat", "dog", "horse", "owl", "mouse", "duck", "frog",
    "lion", "penguin", "turtle", "robot", "dragon",
]  # fmt: skip
PET_KINDS = ["dog", "cat", "rabbit", "hamster", "parrot", "pony", "turtle", "goldfish"]
COLOUR_NAMES = ["red", "blue", "green", "yellow", "orange", "purple", "pink", "black", "white", "brown", "grey"]
FOODS = [
    "pizza", "soup", "rice", "bread", "pasta", "salad", "cheese", "apples", "pancakes", "noodles", "chocolate",
    "cake", "curry", "fish", "tomatoes",
]  # fmt: skip
OBJECTS = [
    "apples", "books", "coins", "stones", "pens", "eggs", "cards", "shells", "marbles", "stamps", "nuts", "flowers",
]  # fmt: skip
TRAVEL_WORDS = [
    "train", "bus", "tickets", "hotel", "map", "beach", "museum", "concert", "flight", "bike", "camera", "shoes",
    "tent", "bag",
]  # fmt: skip
LANGUAGES = ["German", "French", "Spanish", "Italian", "Dutch", "Polish", "Greek", "Japanese", "Swedish", "Turkish"]
SYLLABLES = [
    "ba", "be", "bo", "da", "de", "di", "do", "fa", "fi", "ga", "go", "ka", "ke", "ki", "ko", "la", "le", "li", "lo",
    "lu", "ma", "me", "mi", "mo", "na", "ne", "ni", "no", "pa", "pe", "po", "ra", "re", "ri", "ro", "sa", "se", "si",
    "so", "ta", "te", "ti", "to", "va", "ve", "vi", "vo", "wa", "za", "ze", "zo", "bran", "dor", "fel", "gar", "hul",
    "jor", "kan", "lin", "mar", "nor", "pol", "quin", "ros", "sel", "tan", "ul", "ven", "wil",
]  # fmt: skip
