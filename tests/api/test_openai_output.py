"""The parts that OpenAI's answers share, written from what the engine tells."""

from __future__ import annotations

import pytest

from server.api.openai.output import TextLogprobWriter, add_usage, timings
from server.engine.messages import TokenLogprob, Usage

HALF = "\ufffd"
"""What half a character decodes to."""


def test_of_tokens_with_the_same_text_the_likeliest_is_told() -> None:
    token = TokenLogprob(1, b"\xc3", -0.5, [(1, b"\xc3", -0.5), (2, b"\xe2", -1.5), (3, b"a", -2.5)])
    assert TextLogprobWriter().write([token]).top_logprobs == [{HALF: -0.5, "a": -2.5}]


def test_the_chosen_token_is_among_the_likeliest_though_it_was_not() -> None:
    token = TokenLogprob(3, b"c", -4.5, [(1, b"a", -0.5), (2, b"b", -1.5)])
    assert TextLogprobWriter().write([token]).top_logprobs == [{"a": -0.5, "b": -1.5, "c": -4.5}]
    alone = TokenLogprob(3, b"c", -4.5)
    assert TextLogprobWriter().write([alone]).top_logprobs == [{"c": -4.5}]


def test_what_several_prompts_cost_is_summed() -> None:
    first = Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=2, generation_seconds=0.5, queue_seconds=0.25)
    second = Usage(prompt_tokens=5, completion_tokens=6, generation_seconds=0.5, drafted_tokens=3, accepted_tokens=2)
    told = timings(first, second)
    assert (told["prompt_n"], told["cache_n"], told["predicted_n"]) == (13, 2, 10)
    assert (told["predicted_ms"], told["predicted_per_second"], told["queue_ms"]) == (1000, 10, 250)
    assert (told["draft_n"], told["draft_n_accepted"]) == (3, 2)
    assert add_usage([first, second]).total_tokens == 25
    assert timings(first)["predicted_per_second"] == pytest.approx(8)
