"""What a model says, in Ollama's form: a stream's lines joined are the whole answer, and calls come whole if at all."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.ollama.chat import _response as chat_response
from server.api.ollama.generate import _response as generate_response
from server.api.ollama.generate import _text_deltas as text_deltas
from server.api.ollama.output import Answering
from server.chat.answer import ChatDelta
from server.chat.events import CallArguments, CallStart, Content, Event, Reasoning
from server.engine.messages import Delta, Done, TokenLogprob, Usage
from server.engine.request import Generate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from server.chat.answer import ChatFinish
    from server.engine.client import Engine

USAGE = Usage(prompt_tokens=5, completion_tokens=7, prompt_seconds=0.5, generation_seconds=0.25)


def answering(
    deltas: list[ChatDelta], form: Callable[..., Any] = chat_response, finish: ChatFinish = "stop"
) -> Answering:
    async def said() -> AsyncGenerator[ChatDelta | Done]:
        for delta in deltas:
            yield delta
        yield ChatDelta(0, [], finish=finish)
        yield Done(1, USAGE)

    return Answering("demo:latest", form, said(), started=1.0, loaded=3.5)


def whole(one: Answering) -> dict[str, Any]:
    return json.loads(asyncio.run(one.whole()))


def lines(one: Answering) -> list[dict[str, Any]]:
    async def read() -> list[bytes]:
        return [line async for line in one.lines()]

    found = asyncio.run(read())
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in found)
    return [json.loads(line) for line in found]


def steps(*events: Event) -> list[ChatDelta]:
    return [ChatDelta(0, [event]) for event in events]


def test_the_last_line_has_the_figures() -> None:
    first, last = lines(answering(steps(Content("Hi\nthere"))))
    assert first["message"] == {"role": "assistant", "content": "Hi\nthere"}
    assert (first["model"], first["done"]) == ("demo:latest", False)
    assert set(first) == {"model", "created_at", "done", "message"}
    assert last["message"] == {"role": "assistant", "content": ""}
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert last["load_duration"] == 2_500_000_000
    assert (last["prompt_eval_count"], last["prompt_eval_duration"]) == (5, 500_000_000)
    assert (last["eval_count"], last["eval_duration"]) == (7, 250_000_000)
    assert last["created_at"].endswith("Z")


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", "stop"), ("tool_calls", "stop"), ("length", "length"), ("time", "length")]
)
def test_reasons_to_end(finish: ChatFinish, reason: str) -> None:
    assert whole(answering([], finish=finish))["done_reason"] == reason
    assert lines(answering([], finish=finish))[-1]["done_reason"] == reason


def test_thinking_and_text_are_told_apart() -> None:
    deltas = steps(Reasoning("Let me "), Reasoning("see."), Content("Yes"))
    assert whole(answering(deltas))["message"] == {"role": "assistant", "content": "Yes", "thinking": "Let me see."}
    generated = whole(answering(deltas, generate_response))
    assert (generated["response"], generated["thinking"]) == ("Yes", "Let me see.")
    assert [line.get("thinking") for line in lines(answering(deltas, generate_response))] == [
        "Let me ",
        "see.",
        None,
        None,
    ]


CALLS = steps(
    CallStart(0, "weather"),
    CallArguments(0, '{"city": '),
    CallArguments(0, '"Rome"}'),
    CallStart(1, "now"),
    CallArguments(1, "{}"),
)
CALLED: list[dict[str, Any]] = [
    {"function": {"name": "weather", "arguments": {"city": "Rome"}, "index": 0}},
    {"function": {"name": "now", "arguments": {}, "index": 1}},
]


def test_calls_come_whole_with_arguments_as_objects() -> None:
    assert whole(answering(CALLS, finish="tool_calls"))["message"]["tool_calls"] == CALLED
    found = lines(answering(CALLS, finish="tool_calls"))
    assert [line["message"].get("tool_calls") for line in found] == [[CALLED[0]], [CALLED[1]], None]


def test_a_call_cut_short_is_left_out() -> None:
    cut = [*CALLS[:2], *CALLS[3:]]
    assert "tool_calls" not in whole(answering(CALLS[:2], finish="length"))["message"]
    assert whole(answering(cut, finish="length"))["message"]["tool_calls"] == [CALLED[1]]
    assert len(lines(answering(CALLS[:2], finish="length"))) == 1
    assert len(lines(answering(CALLS[:1], finish="length"))) == 1


def test_log_probabilities_come_with_their_text() -> None:
    token = TokenLogprob(3, b"Hi", -0.5, [(3, b"Hi", -0.5), (4, b"Ho", -1.5)])
    deltas = [ChatDelta(0, [Content("Hi")], [token])]
    expected = [
        {
            "token": "Hi",
            "logprob": -0.5,
            "bytes": [72, 105],
            "top_logprobs": [
                {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]},
                {"token": "Ho", "logprob": -1.5, "bytes": [72, 111]},
            ],
        }
    ]
    assert whole(answering(deltas))["logprobs"] == expected
    assert lines(answering(deltas))[0]["logprobs"] == expected
    assert "logprobs" not in lines(answering(deltas))[-1]


class Halving:
    """An engine that says é in two halves, and then ends."""

    async def generate(self, request: Generate) -> AsyncGenerator[Delta | Done]:
        yield Delta(id=1, tokens=[1], logprobs=[TokenLogprob(1, b"\xc3", -0.5)])
        yield Delta(id=1, text="é", tokens=[2], logprobs=[TokenLogprob(2, b"\xa9", -1.5)])
        yield Delta(id=1, tokens=[3], logprobs=[TokenLogprob(3, b"\xc3", -2.5)], finish="length")
        yield Done(1, USAGE)


async def test_log_probabilities_of_a_raw_prompts_tokens_wait_for_their_text() -> None:
    async with aclosing(text_deltas(cast("Engine", Halving()), Generate(id=0, prompt=""))) as deltas:
        found = [delta async for delta in deltas if isinstance(delta, ChatDelta)]
    assert [[one.logprob for one in delta.logprobs] for delta in found] == [[], [-0.5, -1.5], [-2.5]]
    assert [delta.tokens for delta in found] == [[1], [2], [3]]


EVENT = st.one_of(
    st.text(min_size=1).map(Content),
    st.text(min_size=1).map(Reasoning),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(st.lists(EVENT), st.data())
def test_a_stream_joined_is_the_whole_answer(parts: list[Any], data: st.DataObject) -> None:
    events: list[Event] = []
    calls = 0
    for part in parts:
        if isinstance(part, dict):
            text = json.dumps(part)
            cut = data.draw(st.integers(0, len(text)))
            events += [CallStart(calls, "f"), CallArguments(calls, text[:cut]), CallArguments(calls, text[cut:])]
            calls += 1
        else:
            events.append(part)
    deltas: list[ChatDelta] = []
    while events:
        size = data.draw(st.integers(1, len(events)))
        deltas.append(ChatDelta(0, events[:size]))
        events = events[size:]
    message = whole(answering(deltas))["message"]
    found = [line["message"] for line in lines(answering(deltas))]
    assert "".join(part["content"] for part in found) == message["content"]
    assert "".join(part.get("thinking", "") for part in found) == message.get("thinking", "")
    assert [call for part in found for call in part.get("tool_calls", [])] == message.get("tool_calls", [])
    assert [call["function"]["index"] for call in message.get("tool_calls", [])] == list(range(calls))
