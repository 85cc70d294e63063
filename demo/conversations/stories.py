"""Short stories of a few sentences, written by a small grammar."""

from random import Random

from demo.conversations.names import person
from demo.example import Example, assistant, user
from demo.world import ANIMALS, FOODS

PLACES = {"forest": "in a quiet forest", "sea": "by the sea", "village": "in a small village",
"mountain": "on a high mountain",
          "garden": "in a green garden", "river": "near a wide river"}  # fmt: skip
TRAITS = ["brave", "shy", "clever", "lazy", "kind", "curious"]
FINDS = {
    "a golden key": "The key opened a door in an old tree, and behind it was a room full of books.",
    "a lost letter": "The letter was for a queen, and she gave a feast for the one who brought it.",
    "a small boat": "The boat carried them to an island where nobody had ever been.",
    "a hungry bird": "They shared all the {food} with the bird, and it sang for them every morning.",
    "a broken lamp": "They mended the lamp together, and its light could be seen from far away.",
    "a silver bell": "When the bell rang, all the friends came running.",
}
ENDINGS = {
    "brave": "From then on everybody called {n} the bravest of all.", "shy": "From then on {n} was not shy any more.",
    "clever": "It is good to be clever, thought {n}.", "lazy": "Then {n} went home and slept for a week.",
    "kind": "To be kind makes two people happy, said {n}.", "curious": "What else is out there? thought {n}.",
}  # fmt: skip


def tell(rng: Random, animal: str, name: str, place: str) -> str:
    """Return a story of five sentences about the animal of that name at that place."""
    trait, find, food = rng.choice(TRAITS), rng.choice(list(FINDS)), rng.choice(FOODS)
    sentences = (
        f"Once upon a time a {trait} {animal} called {name} lived {PLACES[place]}.",
        f"Every day {name} ate {food} and looked at the clouds.",
        f"One {rng.choice(('morning', 'evening', 'winter day', 'summer night'))} {name} found {find}.",
        FINDS[find].format(food=food),
        ENDINGS[trait].format(n=name),
    )
    return " ".join(sentences)


def story(rng: Random) -> Example:
    """A story about an animal, with the name or the place where the question gives them."""
    animal, name, place = rng.choice(ANIMALS), person(rng), rng.choice(list(PLACES))
    ask = rng.choice(
        (
            "Tell me a story about a {a}",
            "Write a short story about a {a}",
            "Tell a story about a {a}",
            "I want a story about a {a}",
        )
    )
    ask = ask.format(a=animal)
    ask += rng.choice(("", f" called {name}", f" {PLACES[place]}", f" called {name} {PLACES[place]}")) + "."
    if rng.random() < 0.15:
        ask = rng.choice(("Tell me a story.", "Write a story.", "Tell me a short story."))
    return Example((user(ask), assistant(tell(rng, animal, name, place))))


def plain(rng: Random) -> Example:
    """A story without chat markers, for plain completion."""
    told = tell(rng, rng.choice(ANIMALS), person(rng), rng.choice(list(PLACES)))
    return Example((assistant(told),), plain=True)
