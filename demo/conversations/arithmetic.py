"""Sums within a small stated range: addition, subtraction and multiplication of the numbers 0 to 10.

Held out are whole wordings, and combinations of a wording with two operands; the table of sums itself is learned.
"""

from dataclasses import dataclass
from random import Random

from demo.conversations.facts import vary
from demo.conversations.names import person
from demo.example import Example, assistant, is_held_out, user
from demo.world import OBJECTS

LARGEST = 10
DRILL_SUMS = 23
WORDS = {"+": "plus", "-": "minus", "*": "times"}
WORDINGS = (
    "What is {e}?", "Calculate {e}.", "{e}", "{e} = ?", "How much is {e}?", "Work out {e}.", "Tell me {e}.",
    "Compute {e}.",
    "What does {e} make?", "What do you get for {e}?", "Please work out {e}.", "Solve {e}.", "Please compute {e}.",
    "Can you tell me {e}?", "Please solve {e}.",
)  # fmt: skip
UNSEEN = ("Please calculate {e}.", "How much does {e} make?", "Please tell me {e}.")
UNSEEN_SHARE = 0.1


@dataclass(frozen=True)
class Sum:
    """Two operands and an operator."""

    left: int
    operator: str
    right: int

    @property
    def result(self) -> int:
        """What the sum comes to."""
        match self.operator:
            case "+":
                return self.left + self.right
            case "-":
                return self.left - self.right
            case _:
                return self.left * self.right

    @property
    def equation(self) -> str:
        """The sum with its result, the form of every answer."""
        return f"{self.left} {self.operator} {self.right} = {self.result}"

    def spoken(self, rng: Random) -> str:
        """Return the sum as a question writes it: with symbols, spaced or not, or with words."""
        roll = rng.random()
        if roll < 0.5:
            return f"{self.left} {self.operator} {self.right}"
        if roll < 0.65:
            return f"{self.left}{self.operator}{self.right}"
        return f"{self.left} {WORDS[self.operator]} {self.right}"


def draw_sum(rng: Random, operators: str = "++--*") -> Sum:
    """Return a random sum in range; results are never negative."""
    operator = rng.choice(operators)
    left, right = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
    if operator == "-" and left < right:
        left, right = right, left
    return Sum(left, operator, right)


def known_question(rng: Random) -> tuple[str, Sum]:
    """Return a question for a random sum that may be trained on."""
    while True:
        question, drawn, held_out = draw_question(rng)
        if not held_out:
            return question, drawn


def draw_question(rng: Random) -> tuple[str, Sum, bool]:
    """Return a question for a random sum, the sum, and whether the wording or their combination is held out."""
    drawn = draw_sum(rng)
    unseen = rng.random() < UNSEEN_SHARE
    wording = rng.choice(UNSEEN if unseen else WORDINGS)
    held_out = unseen or is_held_out(f"sum {wording} {drawn.equation}")
    return wording.format(e=drawn.spoken(rng)), drawn, held_out


def single(rng: Random) -> Example:
    """One sum in one of many wordings, sometimes with its thought in front."""
    question, drawn, held_out = draw_question(rng)
    thought = f"This is a sum. {drawn.equation}." if rng.random() < 0.08 else ""
    return Example((user(vary(rng, question)), assistant(drawn.equation + ".", thought)), held_out)


def several(rng: Random) -> Example:
    """Three to eight sums in one question."""
    sums = [draw_sum(rng) for _ in range(rng.randint(3, 8))]
    question = rng.choice(("Work out ", "Calculate ", "What are ", "Solve ")) + ", ".join(
        each.spoken(rng) for each in sums
    )
    answer = ", ".join(each.equation for each in sums)
    return Example((user(question + "."), assistant(answer + ".")), is_held_out(f"several {question}"))


def drill(rng: Random) -> Example:
    """A page of equations without chat markers: many sums in few tokens, of which only the results are learned."""
    return Example((assistant(" ".join(draw_sum(rng).equation + "." for _ in range(DRILL_SUMS))),), plain=True)


def word_problem(rng: Random) -> Example:
    """A sum told as a little story."""
    drawn = draw_sum(rng, "+-")
    name, things = person(rng), rng.choice(OBJECTS)
    if drawn.operator == "+":
        told = rng.choice((
            f"{name} has {drawn.left} {things} and gets {drawn.right} more.",
            f"{name} has {drawn.left} {things} and finds {drawn.right} more.",
            f"{name} buys {drawn.left} {things} and then {drawn.right} more.",
        ))  # fmt: skip
    else:
        told = rng.choice((
            f"{name} has {drawn.left} {things} and gives away {drawn.right}.",
            f"{name} has {drawn.left} {things} and loses {drawn.right}.",
            f"{name} had {drawn.left} {things} and sold {drawn.right}.",
        ))  # fmt: skip
    asked = rng.choice(
        (f"How many {things} does {name} have now?", f"How many {things} are there now?", "How many is that?")
    )
    answer = f"{drawn.equation}, so {name} has {drawn.result} {things}."
    return Example((user(f"{told} {asked}"), assistant(answer)), is_held_out(f"told {told}"))


def running_total(rng: Random) -> Example:
    """A sum whose result the next question builds on."""
    first = draw_sum(rng, "+-")
    while first.result > LARGEST:
        first = draw_sum(rng, "+-")
    step = rng.randint(0, LARGEST)
    if rng.random() < 0.5 or step > first.result:
        second = Sum(first.result, "+", step)
        ask = rng.choice((f"Add {step} to that.", f"And {step} more?", f"Plus {step}?", f"Now add {step}."))
    else:
        second = Sum(first.result, "-", step)
        ask = rng.choice(
            (f"Subtract {step} from that.", f"And {step} less?", f"Minus {step}?", f"Now take away {step}.")
        )
    messages = (
        user(f"What is {first.spoken(rng)}?"), assistant(first.equation + "."), user(ask),
        assistant(second.equation + "."),
    )  # fmt: skip
    return Example(messages, is_held_out(f"running {first.equation} {ask}"))
