"""The generator of the demo model's training text: the same for the same seed, and clear of the held-out questions."""

import json
import re
from itertools import islice
from random import Random
from typing import Any

import pytest

from demo import evaluate
from demo.conversations import MIXTURE, draw, training_examples
from demo.conversations.arithmetic import LARGEST, Sum, draw_question
from demo.example import Example
from demo.template import training_text

SAMPLE = 4000
EQUATION = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")


@pytest.fixture(scope="module")
def sample() -> list[Example]:
    return list(islice(training_examples(7), SAMPLE))


def test_the_same_seed_gives_the_same_text() -> None:
    first, again, other = ([training_text(each) for each in islice(training_examples(seed), 300)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_no_training_example_is_held_out(sample: list[Example]) -> None:
    assert not any(example.held_out for example in sample)


def test_held_out_questions_never_occur_in_training_text(sample: list[Example]) -> None:
    cases = [case for case in evaluate.cases(40, seed=1) if len(case.messages) == 1]
    trained = {(tuple(m["content"] for m in e.messages[:-1]), json.dumps(e.tools)) for e in sample}
    assert len(cases) > 120
    for case in cases:
        assert ((case.messages[0]["content"],), json.dumps(case.tools)) not in trained


def test_every_equation_of_small_numbers_is_right(sample: list[Example]) -> None:
    for example in sample:
        if example.tools:  # a tool may answer anything
            continue
        for left, operator, right, result in EQUATION.findall(training_text(example)):
            assert Sum(int(left), operator, int(right)).result == int(result)


def test_sums_stay_in_the_stated_range() -> None:
    rng = Random(4)
    for _ in range(500):
        _, drawn, _ = draw_question(rng)
        assert 0 <= min(drawn.left, drawn.right) <= max(drawn.left, drawn.right) <= LARGEST
        assert drawn.result >= 0


@pytest.mark.parametrize("category", [name for name in MIXTURE if name != "stories"])
def test_each_category_has_an_evaluation_side(category: str) -> None:
    assert draw(Random(1), category, held_out=True).held_out


def test_every_category_of_the_table_has_enough_cases() -> None:
    cases = evaluate.cases(30, seed=3)
    for category in evaluate.CATEGORIES:
        assert sum(case.category == category for case in cases) == 30
    assert cases == evaluate.cases(30, seed=3)


def test_tool_calls_name_a_tool_on_offer_with_its_arguments(sample: list[Example]) -> None:
    calls = 0
    for example in sample:
        offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in example.tools}
        for message in example.messages:
            for call in message.get("tool_calls", []):
                calls += 1
                properties: Any = offered[call["function"]["name"]]["properties"]
                assert set(call["function"]["arguments"]) <= set(properties)
    assert calls > 100
