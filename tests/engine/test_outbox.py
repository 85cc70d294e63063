"""Tokens that come quickly are sent a few at a time; nothing is lost, changed, or kept where it may not wait."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.messages import Delta, Done, Steps, TokenLogprob, Usage
from server.engine.outbox import TOGETHER, Outbox

USAGE = Usage(prompt_tokens=1, completion_tokens=1)


class Bench:
    """An outbox of 30 ms, its clock, and what it has sent."""

    def __init__(self, interval: float = 0.03) -> None:
        self.now = 100.0
        self.sent: list[Steps] = []
        self.outbox = Outbox(self.sent.append, interval, lambda: self.now)

    def step(self, *deltas: Delta, done: list[Done] | None = None, hurry: bool = False, seconds: float = 0.02) -> None:
        self.now += seconds
        self.outbox.put(Steps(list(deltas), done or []), hurry=hurry)

    @property
    def texts(self) -> list[str]:
        return ["".join(delta.text for delta in steps.deltas) for steps in self.sent]


def token(text: str, **more: Any) -> Delta:
    return Delta(id=1, text=text, tokens=[ord(text[0])], **more)


def test_tokens_of_a_quick_stream_come_in_pairs() -> None:
    bench = Bench()
    for letter in "abcde":
        bench.step(token(letter))
    assert bench.texts == ["a", "bc", "de"]
    assert bench.sent[1].deltas == [Delta(id=1, text="bc", tokens=[98, 99])]


def test_slow_ones_come_one_by_one_and_so_do_all_without_an_interval() -> None:
    bench, single = Bench(), Bench(interval=0.0)
    for letter in "abc":
        bench.step(token(letter), seconds=0.03)
        single.step(token(letter), seconds=0.0001)
    assert bench.texts == single.texts == ["a", "b", "c"]


def test_of_a_very_quick_one_no_more_than_a_few_come_together() -> None:
    bench = Bench()
    for number in range(1 + 3 * TOGETHER):
        bench.step(token(chr(97 + number)), seconds=0.0004)
    assert [len(text) for text in bench.texts] == [1, TOGETHER, TOGETHER, TOGETHER]


def test_streams_side_by_side_are_kept_apart() -> None:
    bench = Bench()
    bench.step(token("x"))
    bench.step(token("a"), Delta(id=1, index=1, text="b", tokens=[5]), seconds=0.001)
    bench.step(Delta(id=2, text="c", tokens=[6]), token("d"), seconds=0.04)
    assert bench.sent[1].deltas == [
        Delta(id=2, text="c", tokens=[6]),
        Delta(id=1, text="ad", tokens=[97, 100]),
        Delta(id=1, index=1, text="b", tokens=[5]),
    ]


@pytest.mark.parametrize("more", [{"finish": "stop"}, {"logprobs": [TokenLogprob(99, b"c", -0.1)]}])
def test_an_end_and_whatever_tells_of_more_than_text_waits_for_nothing(more: dict[str, Any]) -> None:
    bench = Bench()
    bench.step(token("a"))
    bench.step(token("b"), seconds=0.001)
    bench.step(token("c", **more), seconds=0.001)
    assert bench.texts == ["a", "bc"]


def test_before_a_prompt_and_after_it_nothing_is_kept() -> None:
    bench = Bench()
    bench.step(token("a"))
    bench.step(token("b"), seconds=0.001)
    bench.outbox.flush()
    bench.step(token("c"), seconds=0.001, hurry=True)
    bench.outbox.flush()
    assert bench.texts == ["a", "b", "c"]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.0005, 0.02, 0.2])), max_size=40))
def test_each_stream_gets_all_of_its_tokens_in_order(steps: list[tuple[int, int, float]]) -> None:
    bench = Bench()
    given: dict[int, list[int]] = {1: [], 2: [], 3: []}
    for number, (stream, count, seconds) in enumerate(steps):
        tokens = list(range(10 * number, 10 * number + count))
        given[stream] += tokens
        bench.step(Delta(id=stream, text=f"{number};", tokens=tokens), seconds=seconds)
    bench.step(done=[Done(1, USAGE)])
    for stream, tokens in given.items():
        got = [delta for sent in bench.sent for delta in sent.deltas if delta.id == stream]
        assert [token for delta in got for token in delta.tokens] == tokens
        texts = "".join(delta.text for delta in got)
        assert texts == "".join(f"{number};" for number, (of, *_) in enumerate(steps) if of == stream)
