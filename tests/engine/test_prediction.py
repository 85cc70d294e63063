"""Following a predicted text: from its beginning, past a departure, and through a real worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from server.engine.prediction import Prediction
from server.engine.request import Sampling
from tests.engine.test_engine import PROMPT, ask

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import StartEngine

TEXT = [1, 2, 3, 4, 5, 6, 7, 8, 9]


def after(*tokens: int, predicted: list[int] = TEXT) -> list[int]:
    """What is proposed once an answer has come so far."""
    prediction = Prediction(predicted)
    for token in tokens:
        prediction.take(token)
    return prediction.propose(3)


def test_a_prediction_is_followed_from_its_beginning() -> None:
    assert after() == [1, 2, 3]
    assert after(1, 2) == [3, 4, 5]
    assert after(*TEXT[:8]) == [9]
    assert after(*TEXT) == []


def test_behind_a_departure_three_tokens_take_it_up_again() -> None:
    assert after(1, 2, 40) == []
    assert after(1, 2, 40, 4, 5) == []
    assert after(1, 2, 40, 4, 5, 6) == [7, 8, 9]
    assert after(50, 51, 1, 2, 3) == [4, 5, 6]
    assert after(1, 2, 3, 6, 7, 8) == [9]


def test_of_several_places_the_next_one_is_taken() -> None:
    twice = [1, 2, 3, 4, 1, 2, 3, 5, 6]
    assert after(9, 1, 2, 3, predicted=twice) == [4, 1, 2]
    assert after(1, 2, 3, 4, 9, 1, 2, 3, predicted=twice) == [5, 6]
    assert after(*twice, 1, 2, 3, predicted=twice) == [5, 6], "or the last, where none is left"


def test_the_longer_it_was_right_the_more_is_expected_of_it() -> None:
    prediction = Prediction(TEXT)
    expected = [prediction.agreeing]
    for token in [1, 2, 40, 4, 5, 6, 7]:
        prediction.take(token)
        expected.append(prediction.agreeing)
    assert expected == [6, 7, 8, 3, 3, 3, 3, 4]


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30))
def test_what_is_proposed_stands_behind_what_was_said(predicted: list[int], said: list[int]) -> None:
    prediction = Prediction(predicted)
    for count, token in enumerate(said, 1):
        prediction.take(token)
        proposed = prediction.propose(5)
        assert prediction.hit == bool(proposed)
        latest = said[max(0, count - 3) : count]
        if proposed:
            places = range(len(predicted) - len(latest) - len(proposed) + 1)
            assert any(predicted[at : at + len(latest) + len(proposed)] == latest + proposed for at in places)


async def test_a_prediction_changes_nothing_but_the_number_of_steps(start_engine: StartEngine) -> None:
    plain = await start_engine(lookup=False)
    guessing = await start_engine()
    for sampling in (Sampling(temperature=0), Sampling(temperature=0.7, seed=11, top_k=20)):
        expected = await ask(plain, PROMPT, 100, sampling=sampling)
        for predicted in (expected.text[0], expected.text[0][20:], "something else", "\ufffd"):
            found = await ask(guessing, PROMPT, 100, sampling=sampling, prediction=predicted)
            assert found.tokens == expected.tokens
            usage = found.usage
            assert 0 <= usage.accepted_predicted_tokens <= usage.predicted_tokens <= usage.drafted_tokens


async def test_no_more_of_a_prediction_is_counted_as_right_than_was_given_out(
    start_engine: StartEngine, demo_gguf: Path
) -> None:
    engine = await start_engine(path=str(demo_gguf), digest="demo")
    sampling = Sampling(temperature=0)
    expected = (await ask(engine, "Once upon a time", 60, sampling=sampling)).text[0]
    for end in range(20, 100, 4):
        stop = [expected[end : end + 10]]
        usage = (await ask(engine, "Once upon a time", 60, sampling=sampling, prediction=expected, stop=stop)).usage
        assert usage.accepted_tokens <= usage.completion_tokens
        assert usage.accepted_predicted_tokens <= usage.completion_tokens
