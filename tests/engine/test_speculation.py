from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.speculation import GRADES, Acceptance, Experience, Kind, Lookup, StepTimes, draft_length, grade


def test_lookup_proposes_what_followed_before() -> None:
    assert Lookup([1, 2, 3, 4, 5, 9, 1, 2, 3]).propose(2) == [4, 5]


def test_lookup_follows_a_repetition_into_itself() -> None:
    assert Lookup([7, 8, 7, 8, 7]).propose(4) == [8, 7, 8, 7]


def test_lookup_takes_the_latest_occurrence() -> None:
    assert Lookup([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3]).propose(1) == [5]


def test_lookup_has_nothing_for_a_new_ngram() -> None:
    lookup = Lookup([1, 2, 3, 4])
    assert lookup.propose(3) == []
    lookup.extend([1, 2, 3])
    assert lookup.propose(1) == [4]


@given(st.lists(st.integers(0, 2), max_size=20), st.lists(st.integers(0, 2), max_size=20))
def test_forks_of_a_lookup_find_what_they_would_alone(prompt: list[int], answer: list[int]) -> None:
    index = Lookup(prompt)
    forks = index.fork(), index.fork()
    for fork, tokens in zip(forks, (answer, answer[::-1]), strict=True):
        fork.extend(tokens)
        alone = Lookup(prompt + tokens)
        assert (fork.hit, fork.agreeing, fork.propose(5)) == (alone.hit, alone.agreeing, alone.propose(5))


@given(st.lists(st.integers(0, 2), max_size=40))
def test_lookup_counts_how_much_agrees(tokens: list[int]) -> None:
    lookup = Lookup(tokens)
    if not lookup.hit:
        assert lookup.agreeing == 0
        return
    ends = [end for end in range(3, len(tokens)) if tokens[end - 3 : end] == tokens[-3:]]
    before, n = tokens[: ends[-1]], lookup.agreeing
    assert before[-n:] == tokens[-n:]
    assert n == GRADES[-1] or n == len(before) or before[-n - 1] != tokens[-n - 1]


def test_what_agrees_for_long_is_of_a_higher_grade() -> None:
    story = list(range(20))
    lookup = Lookup(story + story[:3])
    grades = [grade(lookup.agreeing)]
    for token in story[3:]:
        lookup.extend([token])
        grades.append(grade(lookup.agreeing))
    assert grades == [0] * 3 + [1] * 6 + [2] * 9


@pytest.fixture
def free_width() -> StepTimes:
    times = StepTimes()
    for width in (1, 2, 4, 8):
        times.learn(width, 1.0)
    return times


@pytest.fixture
def dear_width() -> StepTimes:
    times = StepTimes()
    for width in (1, 2, 4, 8):
        times.learn(width, float(width))
    return times


def test_times_between_measurements_lie_on_a_line(dear_width: StepTimes) -> None:
    assert dear_width.seconds(3) == pytest.approx(3.0)
    assert dear_width.seconds(16) == pytest.approx(16.0)


def test_a_lucky_measurement_does_not_make_a_wider_step_free(dear_width: StepTimes) -> None:
    for _ in range(10):
        dear_width.learn(8, 8.0)
        dear_width.learn(9, 8.0)
        dear_width.learn(10, 10.4)
    assert draft_length(Acceptance(rate=0.5), dear_width, 8) == 0


@given(st.dictionaries(st.integers(1, 128), st.floats(1e-4, 10), min_size=1))
def test_wider_steps_never_take_less_time(measured: dict[int, float]) -> None:
    times = StepTimes()
    for width, seconds in measured.items():
        times.learn(width, seconds)
    told = [times.seconds(width) for width in range(1, 200)]
    assert told == sorted(told)


def test_where_width_costs_nothing_much_is_proposed(free_width: StepTimes) -> None:
    assert draft_length(Acceptance(rate=0.9), free_width, 1) >= 7


def test_where_width_costs_all_nothing_is_proposed_but_now_and_then(dear_width: StepTimes) -> None:
    acceptance = Acceptance(rate=0.9)
    assert [draft_length(acceptance, dear_width, 1) for _ in range(64)].count(1) == 2


def test_a_new_sequence_expects_what_finished_ones_found() -> None:
    experience = Experience()
    guess, quotation = Kind("lookup", 0), Kind("lookup", 2)
    before = experience.begin(quotation).rate
    for _ in range(10):
        experience.learn(guess, Acceptance(drafted=40, tried=10, accepted=1))
    assert experience.begin(guess).rate == pytest.approx(0.16, abs=0.02), "what was never put to the test says nothing"
    experience.learn(guess, Acceptance())
    assert experience.begin(guess).rate == pytest.approx(0.16, abs=0.02), "who proposed nothing says nothing"
    assert experience.begin(quotation).rate == before, "each kind for itself"


def test_acceptance_follows_what_happens() -> None:
    acceptance = Acceptance()
    for _ in range(20):
        acceptance.learn(4, 0)
    assert acceptance.rate < 0.05
    for _ in range(20):
        acceptance.learn(4, 4)
    assert acceptance.rate > 0.95
    assert (acceptance.drafted, acceptance.accepted) == (160, 80)
