"""Conversations of several turns in which an earlier turn matters."""

from collections.abc import Callable
from random import Random

from demo.conversations import arithmetic, facts
from demo.conversations.names import city, person
from demo.example import Example, Message, assistant, is_held_out, user
from demo.world import COLOUR_NAMES, FOODS, PET_KINDS, RELATIONS

Told = tuple[str, str, str, str]  # what is said, the reply, a question about it, its answer


def _name(rng: Random) -> Told:
    name = person(rng)
    said = rng.choice(
        ("My name is {x}.", "I am {x}.", "Hi, I'm {x}.", "Hello, my name is {x}.", "Call me {x}.", "Hi! I am {x}.")
    )
    asked = rng.choice((
        "What is my name?", "Who am I?", "Do you remember my name?", "What's my name?", "Tell me my name.",
        "What am I called?",
    ))  # fmt: skip
    return said.format(x=name), f"Nice to meet you, {name}.", asked, f"Your name is {name}."


def _colour(rng: Random) -> Told:
    colour = rng.choice(COLOUR_NAMES)
    said = rng.choice(
        (
            f"My favourite colour is {colour}.",
            f"I like {colour} best.",
            f"{colour.capitalize()} is my favourite colour.",
        )
    )
    asked = rng.choice(("What is my favourite colour?", "Which colour do I like?", "Which colour is my favourite?"))
    return said, f"{colour.capitalize()} is a nice colour.", asked, f"Your favourite colour is {colour}."


def _town(rng: Random) -> Told:
    town = city(rng)
    said = rng.choice((f"I live in {town}.", f"My home is in {town}.", f"I am from {town}."))
    asked = rng.choice(("Where do I live?", "Which city do I live in?", "Where is my home?", "Where am I from?"))
    return said, f"{town} must be a nice place.", asked, f"You live in {town}."


def _pet(rng: Random) -> Told:
    kind, name = rng.choice(PET_KINDS), person(rng)
    said = rng.choice(
        (f"My {kind} is called {name}.", f"I have a {kind} called {name}.", f"My {kind}'s name is {name}.")
    )
    asked = rng.choice((f"What is my {kind} called?", f"What is the name of my {kind}?", f"What is my {kind}'s name?"))
    return said, f"{name} is a good name for a {kind}.", asked, f"Your {kind} is called {name}."


def _food(rng: Random) -> Told:
    food = rng.choice(FOODS)
    said = rng.choice((f"I like to eat {food}.", f"My favourite food is {food}.", f"I love {food}."))
    asked = rng.choice(("What do I like to eat?", "What is my favourite food?", "Which food do I like?"))
    return said, f"I hope you have {food} today.", asked, f"You like {food}."


def _number(rng: Random) -> Told:
    number = rng.randint(1, 99)
    said = rng.choice(
        (f"My number is {number}.", f"Remember the number {number}.", f"Keep the number {number} in mind.")
    )
    asked = rng.choice(("What is my number?", "Which number did I tell you?", "What was the number?"))
    return said, f"I will remember the number {number}.", asked, f"The number is {number}."


TELLINGS: tuple[Callable[[Random], Told], ...] = (_name, _name, _colour, _town, _pet, _food, _number)


def small_talk(rng: Random) -> tuple[Message, ...]:
    """Return one exchange that has nothing to do with the rest of the conversation."""
    roll = rng.random()
    if roll < 0.5:
        fact = facts.known_fact(rng)
        return user(facts.vary(rng, fact.question)), assistant(fact.answer)
    if roll < 0.85:
        question, drawn = arithmetic.known_question(rng)
        return user(question), assistant(drawn.equation + ".")
    return facts.greeting(rng).messages


def recall(rng: Random) -> Example:
    """One to three things the user tells, other talk between them, and then questions about them."""
    tellings = rng.sample(TELLINGS[1:], k=rng.choice((1, 1, 2, 3)))
    told = [telling(rng) for telling in tellings]
    messages: list[Message] = []
    for said, reply, _, _ in told:
        messages += [user(said), assistant(reply)]
        if rng.random() < 0.5:
            messages += small_talk(rng)
    rng.shuffle(told)
    asked = told[: rng.randint(1, len(told))]
    for _, _, question, answer in asked:
        messages += [user(question), assistant(answer)]
    return Example(tuple(messages), is_held_out(f"recall {asked[-1][2]} {asked[-1][3]}"))


def told_together(rng: Random) -> Example:
    """Something told and asked about in one message, or told in the message that asks something else first."""
    said, reply, question, answer = rng.choice(TELLINGS)(rng)
    if rng.random() < 0.5:
        return Example((user(f"{said} {question}"), assistant(answer)), is_held_out(f"together {question} {answer}"))
    fact = facts.known_fact(rng)
    messages = (
        user(f"{said} {fact.question}"), assistant(f"{reply} {fact.answer}"), user(question), assistant(answer),
    )  # fmt: skip
    return Example(messages, is_held_out(f"together {question} {answer}"))


def follow_up(rng: Random) -> Example:
    """A fact, and then one or two more of the same kind that name only their subject."""
    relation = rng.choice(RELATIONS)
    subjects = rng.sample(list(relation.facts), k=rng.choice((2, 2, 3)))
    messages: list[Message] = [user(rng.choice(relation.wordings).format(s=subjects[0]))]
    messages.append(assistant(relation.answer.format(s=subjects[0], v=relation.facts[subjects[0]])))
    key = ""
    for subject in subjects[1:]:
        short = rng.choice(relation.follow_up)
        key = f"follow {short} {relation.name} {subject}"
        messages += [
            user(short.format(s=subject)),
            assistant(relation.answer.format(s=subject, v=relation.facts[subject])),
        ]
    return Example(tuple(messages), is_held_out(key))


def first_question(rng: Random) -> Example:
    """Two exchanges, and then a question about the first of them."""
    relation = rng.choice(RELATIONS)
    subject = rng.choice(list(relation.facts))
    question = relation.wordings[0].format(s=subject)
    answer = relation.answer.format(s=subject, v=relation.facts[subject])
    messages: list[Message] = [user(question), assistant(answer)]
    messages += small_talk(rng)
    asked = rng.choice(("What was my first question?", "What did I ask first?", "What did I ask you at first?"))
    messages += [user(asked), assistant(f"You asked: {question}")]
    return Example(tuple(messages), is_held_out(f"first {asked} {question}"))
