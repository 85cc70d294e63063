"""System prompts that change the answer."""

from collections.abc import Callable, Sequence
from random import Random

from demo.conversations import facts
from demo.conversations.names import invented, person
from demo.example import Example, assistant, is_held_out, system, user

SPELLED = ("capital", "sound")  # capital letters are spelled one by one: it is learned for these alone
SIGN_OFFS = (
    "Over and out.",
    "Have a nice day!",
    "Cheers!",
    "At your service.",
    "Best wishes.",
    "So it is.",
    "Amen.",
    "Hooray!",
)


def _transformed(
    rng: Random, prompts: tuple[str, ...], change: Callable[[facts.Fact], str], kind: str, relations: Sequence[str] = ()
) -> Example:
    fact = facts.draw_fact(rng)
    while relations and fact.relation.name not in relations:
        fact = facts.draw_fact(rng)
    held_out = fact.held_out or is_held_out(f"{kind} {fact.relation.name} {fact.subject}")
    return Example((system(rng.choice(prompts)), user(fact.question), assistant(change(fact))), held_out)


def capitals(rng: Random) -> Example:
    """Answers in capital letters."""
    prompts = (
        "Answer in capital letters.",
        "Always write in capital letters.",
        "Write everything in upper case.",
        "Answer in upper case.",
    )
    return _transformed(rng, prompts, lambda fact: fact.answer.upper(), "upper", SPELLED)


def pirate(rng: Random) -> Example:
    """Answers like a pirate."""
    prompts = (
        "You are a pirate.",
        "Talk like a pirate.",
        "Answer like a pirate.",
        "You are a pirate. Answer like one.",
    )
    return _transformed(rng, prompts, lambda fact: f"Arr! {fact.answer[:-1]}, matey!", "pirate")


def one_word(rng: Random) -> Example:
    """Answers with the value alone."""
    prompts = ("Answer with one word.", "Reply with one word only.", "Use one word.", "Be brief. Answer with one word.")
    return _transformed(rng, prompts, lambda fact: fact.value + ".", "word")


def sign_off(rng: Random) -> Example:
    """Answers that end with the words the system prompt gives."""
    words = rng.choice(SIGN_OFFS) if rng.random() < 0.5 else invented(rng) + rng.choice("!.")
    prompts = (f"End every answer with: {words}", f"Always end with: {words}", f"Finish each answer with: {words}")
    return _transformed(rng, prompts, lambda fact: f"{fact.answer} {words}", f"sign {words}")


def persona(rng: Random) -> Example:
    """A name the system prompt gives the model."""
    name = person(rng)
    prompt = rng.choice(
        (
            f"You are {name}.",
            f"Your name is {name}.",
            f"You are {name}, a helpful assistant.",
            f"You are called {name}.",
        )
    )
    question = rng.choice(("Who are you?", "What is your name?", "What are you called?", "Tell me your name."))
    return Example(
        (system(prompt), user(question), assistant(f"My name is {name}.")), is_held_out(f"persona {question} {name}")
    )


def knows_user(rng: Random) -> Example:
    """A user's name that the system prompt gives."""
    name = person(rng)
    prompt = rng.choice((f"The user is called {name}.", f"The user's name is {name}.", f"You are talking to {name}."))
    if rng.random() < 0.5:
        exchange = (
            user(rng.choice(("What is my name?", "Who am I?", "Tell me my name."))),
            assistant(f"Your name is {name}."),
        )
    else:
        exchange = user(rng.choice(("Hello!", "Hi!", "Hello", "Hi"))), assistant(f"Hello {name}! How can I help you?")
    return Example((system(prompt), *exchange), is_held_out(f"user {exchange[0]['content']} {name}"))
