"""The generator of the demo model's training text: the same for the same seed, and clear of the held-out questions."""

import json
import re
from itertools import islice
from random import Random

import pytest

from demo import evaluate
from demo.conversations import MIXTURE, draw, training_examples
from demo.conversations.arithmetic import LARGEST_FACTOR, LARGEST_TERM, Sum
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
    # A sum is held out by its operands, which occur in the text of other sums; the next test looks for those.
    cases = [case for case in evaluate.cases(40, seed=1) if case.category != "arithmetic" and len(case.messages) == 1]
    trained = {(tuple(m["content"] for m in e.messages[:-1]), json.dumps(e.tools)) for e in sample}
    assert len(cases) > 80
    for case in cases:
        assert ((case.messages[0]["content"],), json.dumps(case.tools)) not in trained


def test_held_out_sums_are_never_worked_out_in_training_text(sample: list[Example]) -> None:
    equations = {match.groups() for example in sample for match in EQUATION.finditer(training_text(example))}
    in_range = [Sum(int(left), operator, int(right)) for left, operator, right, _ in equations]
    in_range = [each for each in in_range if max(each.left, each.right) <= LARGEST_TERM]
    assert len(in_range) > 300
    assert not [each.equation for each in in_range if each.held_out]


def test_every_equation_of_small_numbers_is_right(sample: list[Example]) -> None:
    for example in sample:
        if example.tools:  # a tool may answer anything
            continue
        for left, operator, right, result in EQUATION.findall(training_text(example)):
            assert Sum(int(left), operator, int(right)).result == int(result)


def test_some_sums_of_each_kind_are_held_out() -> None:
    for operator, largest in (("+", LARGEST_TERM), ("-", LARGEST_TERM), ("*", LARGEST_FACTOR)):
        pairs = [Sum(a, operator, b) for a in range(largest + 1) for b in range(largest + 1)]
        share = sum(each.held_out for each in pairs) / len(pairs)
        assert 0.03 < share < 0.15


def test_of_a_mirrored_sum_at_least_one_is_trained_on() -> None:
    for operator in "+*":
        for left in range(LARGEST_TERM + 1):
            for right in range(LARGEST_TERM + 1):
                assert not (Sum(left, operator, right).held_out and Sum(right, operator, left).held_out)


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
                properties = offered[call["function"]["name"]]["properties"]
                assert isinstance(properties, dict)
                assert set(call["function"]["arguments"]) <= set(properties)
    assert calls > 100
