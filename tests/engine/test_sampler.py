from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from server.engine.request import Sampling
from server.engine.sampler import NotANumberError, Sampler, likeliest, log_probabilities

logits = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=2000).map(lambda v: np.array(v, np.float32))


def choices(sampling: Sampling, row: list[float], times: int = 4000) -> Counter[int]:
    sampler = Sampler(sampling)
    return Counter(sampler.choose(np.array(row, np.float32)) for _ in range(times))


@given(logits, st.integers(1, 60))
def test_likeliest_finds_the_highest_logits(row: np.ndarray, k: int) -> None:
    found = likeliest(row, k)
    assert len(found) == min(k, row.size)
    assert sorted(row[found]) == sorted(np.sort(row)[-k:])


def test_likeliest_of_a_large_vocabulary() -> None:
    row = np.random.default_rng(0).standard_normal(151_936).astype(np.float32)
    assert set(likeliest(row, 40)) == set(np.argsort(row)[-40:])


@given(logits)
def test_greedy_takes_the_likeliest(row: np.ndarray) -> None:
    assert Sampler(Sampling(temperature=0)).choose(row.copy()) == row.argmax()


def test_frequencies_follow_the_softmax() -> None:
    row = [0.0, 1.0, 2.0]
    expected = np.exp(row) / np.exp(row).sum()
    seen = choices(Sampling(seed=1), row)
    assert [seen[i] / 4000 for i in range(3)] == pytest.approx(expected, abs=0.03)


def test_temperature_sharpens() -> None:
    expected = np.exp([0.0, 2.0]) / np.exp([0.0, 2.0]).sum()
    assert choices(Sampling(seed=1, temperature=0.5), [0.0, 1.0])[0] / 4000 == pytest.approx(expected[0], abs=0.03)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(seed=1, top_k=2), {2, 3}),
        (Sampling(seed=1, top_p=0.6), {3}),
        (Sampling(seed=1, top_p=0.8), {2, 3}),
        (Sampling(seed=1, min_p=0.5), {3}),
        (Sampling(seed=1, min_p=0.3), {2, 3}),
        (Sampling(seed=1, top_k=3, min_p=0.1), {1, 2, 3}),
    ],
)
def test_only_the_kept_tokens_are_chosen(sampling: Sampling, kept: set[int]) -> None:
    assert set(choices(sampling, [0.0, 1.0, 2.0, 3.0])) == kept  # probabilities .03, .09, .24, .64


def test_equal_seeds_give_equal_choices_and_streams_differ() -> None:
    row = np.zeros(1000, np.float32)

    def draw(stream: int) -> list[int]:
        sampler = Sampler(Sampling(seed=5), stream=stream)
        return [sampler.choose(row.copy()) for _ in range(20)]

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_banned_tokens_and_bias() -> None:
    assert Sampler(Sampling(temperature=0), banned=[1]).choose(np.array([0, 9, 1], np.float32)) == 2
    assert Sampler(Sampling(temperature=0, logit_bias={0: 100.0})).choose(np.array([0, 9, 1], np.float32)) == 0


def test_presence_and_frequency_count_generated_tokens() -> None:
    sampler = Sampler(Sampling(temperature=0, frequency_penalty=0.6), prompt=[1, 1, 1, 1])
    row = np.array([0.0, 1.0], np.float32)
    chosen: list[int] = []
    for _ in range(3):
        chosen.append(sampler.choose(row.copy()))
        sampler.observe(chosen[-1])
    assert chosen == [1, 1, 0]


def test_the_repeat_penalty_counts_the_prompt_within_its_window() -> None:
    row = np.array([1.0, 1.1], np.float32)
    assert Sampler(Sampling(temperature=0, repeat_penalty=2.0), prompt=[1, 1]).choose(row.copy()) == 0
    window = Sampling(temperature=0, repeat_penalty=2.0, repeat_last_n=1)
    assert Sampler(window, prompt=[1, 0]).choose(row.copy()) == 1


def test_log_probabilities() -> None:
    row = np.log(np.array([0.1, 0.2, 0.7], np.float32))
    chosen, top = log_probabilities(row, 1, 2)
    assert chosen == pytest.approx(np.log(0.2), abs=1e-5)
    assert [token for token, _ in top] == [2, 1]
    assert top[0][1] == pytest.approx(np.log(0.7), abs=1e-5)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0), Sampling(top_k=2), Sampling(min_p=0.05), Sampling(top_p=0.9), Sampling()],
)
@pytest.mark.parametrize("row", [[np.nan] * 4, [1.0, np.nan, 2.0, 3.0]])
def test_what_is_no_number_is_never_chosen_from(sampling: Sampling, row: list[float]) -> None:
    logits = np.array(row, np.float32)
    with pytest.raises(NotANumberError):
        Sampler(sampling).choose(logits.copy())
    with pytest.raises(NotANumberError):
        Sampler(Sampling(temperature=0), banned=[0]).likeliest(logits.copy())
    with pytest.raises(NotANumberError):
        log_probabilities(logits, 0, 2)


@pytest.mark.parametrize(("last", "chosen"), [(-1, 2), (0, 0), (1, 0), (2, 1), (3, 2)])
def test_the_repeat_penalty_looks_back_as_far_as_it_is_told_and_with_minus_one_at_all(last: int, chosen: int) -> None:
    sampling = Sampling(temperature=0, repeat_penalty=1000.0, repeat_last_n=last)
    row = np.array([10.0, 9.0, 8.0, 0.0], np.float32)
    assert Sampler(sampling, prompt=[1, 0, 3]).choose(row.copy()) == chosen
    sampler = Sampler(sampling)
    for token in (1, 0, 3):
        sampler.observe(token)
    assert sampler.choose(row.copy()) == chosen
