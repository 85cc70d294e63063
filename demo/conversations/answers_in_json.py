"""Questions to be answered with JSON alone: facts, sums, lists, and records copied from the question."""

import json
from random import Random

from demo.conversations.arithmetic import draw_question
from demo.conversations.facts import draw_fact
from demo.conversations.names import city, person
from demo.example import Example, assistant, is_held_out, user
from demo.world import COLOUR_NAMES, FOODS

REQUESTS = (
    "Answer in JSON: {q}",
    "{q} Answer in JSON.",
    "{q} Reply with JSON only.",
    "In JSON: {q}",
    "{q} Give me JSON.",
)


def _reply(question: str, value: object, held_out: bool) -> Example:
    return Example((user(question), assistant(json.dumps(value))), held_out)


def fact(rng: Random) -> Example:
    """A fact as an object with its subject and its value."""
    drawn = draw_fact(rng)
    request = rng.choice(REQUESTS)
    value = {drawn.relation.subject: drawn.subject, drawn.relation.name: drawn.value}
    held_out = drawn.held_out or is_held_out(f"json {request} {drawn.relation.name} {drawn.subject}")
    return _reply(request.format(q=drawn.question), value, held_out)


def arithmetic(rng: Random) -> Example:
    """A sum as an object with the equation and the result."""
    question, drawn, held_out = draw_question(rng)
    value = {"sum": drawn.equation, "result": drawn.result}
    return _reply(rng.choice(REQUESTS).format(q=question), value, held_out)


def record(rng: Random) -> Example:
    """A sentence about a person, turned into an object with the keys asked for."""
    name, age, town = person(rng), rng.randint(2, 99), city(rng)
    colour, food = rng.choice(COLOUR_NAMES), rng.choice(FOODS)
    clauses: list[tuple[str, str, object]] = [
        ("age", f"is {age} years old", age),
        ("city", f"lives in {town}", town),
        ("colour", f"likes {colour}", colour),
        ("food", f"eats {food}", food),
    ]
    chosen = rng.sample(clauses, k=rng.choice((1, 2, 2, 3)))
    sentence = f"{name} " + " and ".join(clause for _, clause, _ in chosen) + "."
    value = {"name": name, **{key: value for key, _, value in chosen}}
    keys = ", ".join(value)
    request = rng.choice((
        f"Turn this into JSON: {sentence}", f"{sentence} Give me that as JSON.", f"Write this as JSON: {sentence}",
        f"Make a JSON object with the keys {keys}: {sentence}", f"{sentence} Answer in JSON with the keys {keys}.",
    ))  # fmt: skip
    return _reply(request, value, is_held_out(f"record {name} {[key for key, _, _ in chosen]}"))


def array(rng: Random) -> Example:
    """A list of words or numbers as a JSON array."""
    size = rng.randint(2, 4)
    items: list[object] = (
        [rng.randint(0, 99) for _ in range(size)]
        if rng.random() < 0.4
        else [*rng.sample([*COLOUR_NAMES, *FOODS], k=size)]
    )
    listed = ", ".join(map(str, items))
    request = rng.choice(
        (
            "Write {x} as a JSON array.",
            "Make a JSON array of {x}.",
            "As a JSON array: {x}",
            "Turn {x} into a JSON list.",
        )
    )
    return _reply(request.format(x=listed), items, is_held_out(f"array {listed}"))
