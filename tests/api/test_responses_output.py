"""An answer's events as a response's items, checked against how OpenAI's own client joins a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from server.api.openai.responses.items import decode_thoughts
from server.api.openai.responses.output import ResponseWriter
from server.api.openai.responses.request import ResponseRequest
from server.chat.answer import ChatDelta
from server.chat.events import CallArguments, CallStart, Content, Event, Reasoning
from server.engine.messages import TokenLogprob, Usage
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.chat.answer import ChatFinish

USAGE = Usage(prompt_tokens=9, completion_tokens=5, cached_tokens=4)
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


def writer(*, encrypted: bool = False) -> ResponseWriter:
    return ResponseWriter("demo", ResponseRequest.model_validate({"input": "Hi"}).describe(), encrypted=encrypted)


def read(stream: bytes) -> list[dict[str, Any]]:
    """Each event's data."""
    found: list[dict[str, Any]] = []
    for event in stream.decode().split("\n\n")[:-1]:
        name, data = event.split("\n", 1)
        found.append(msgspec.json.decode(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def write(subject: ResponseWriter, events: Sequence[Event], finish: ChatFinish = "stop") -> list[dict[str, Any]]:
    """The whole stream of an answer."""
    stream = subject.begin()
    for event in events:
        logprobs = [TokenLogprob(1, event.text.encode(), -0.5)] if isinstance(event, Content) else []
        stream += subject.add(ChatDelta(0, [event], logprobs, reasoning_tokens=isinstance(event, Reasoning)))
    stream += subject.add(ChatDelta(0, [], finish=finish))
    subject.complete(USAGE)
    return read(stream + subject.end())


PIECES = st.text(min_size=1, max_size=6)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    for kind in draw(st.lists(st.sampled_from(["thoughts", "text", "call"]), max_size=5)):
        pieces = draw(st.lists(PIECES, min_size=1, max_size=3))
        if kind == "call":
            index = sum(isinstance(event, CallStart) for event in events)
            events.append(CallStart(index, "look"))
            events += [CallArguments(index, piece) for piece in pieces]
        else:
            events += [Content(piece) if kind == "text" else Reasoning(piece) for piece in pieces]
    return events


@given(answers(), st.sampled_from(["stop", "length", "tool_calls"]))
def test_a_stream_tells_the_whole_answer(events: list[Event], finish: ChatFinish) -> None:
    subject = writer()
    streamed = write(subject, events, finish)
    whole = msgspec.json.decode(msgspec.json.encode(subject.response))
    assert [event["sequence_number"] for event in streamed] == list(range(len(streamed)))
    assert streamed[-1]["type"] == ("response.incomplete" if finish == "length" else "response.completed")
    assert streamed[-1]["response"] == whole
    done = [event["item"] for event in streamed if event["type"] == "response.output_item.done"]
    assert done == whole["output"]
    for index, item in enumerate(whole["output"]):
        about = [event for event in streamed if event.get("output_index") == index]
        deltas = "".join(event.get("delta", "") for event in about)
        assert deltas == (item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"])
        added = about[0]["item"]
        assert (added["id"], added["status"]) == (item["id"], "in_progress")


@given(answers())
def test_openais_client_joins_a_stream_to_the_whole_answer(events: list[Event]) -> None:
    subject = writer()
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in write(subject, events):
        state.handle_event(EVENTS.validate_python(event))
    joined = state._completed_response  # what get_final_response gives
    assert joined
    assert joined.output_text == "".join(event.text for event in events if isinstance(event, Content))
    whole = msgspec.json.decode(msgspec.json.encode(subject.output))
    assert [item.to_dict()["id"] for item in joined.output] == [item["id"] for item in whole]


def test_events_come_in_openais_order() -> None:
    events = write(writer(), [Reasoning("Hm"), Content("Yes"), CallStart(0, "look"), CallArguments(0, "{}")])
    assert [event["type"].removeprefix("response.") for event in events] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done"),
        "completed",
    ]


def test_an_answer_cut_short_says_so() -> None:
    subject = writer()
    write(subject, [Reasoning("Hm"), Content("Ye")], "length")
    response = msgspec.to_builtins(subject.response)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


def test_log_probabilities_belong_to_their_text() -> None:
    subject = writer()
    events = write(subject, [Content("a"), Content("b"), Reasoning("hm"), Content("c")])
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [[one["token"] for one in event["logprobs"]] for event in deltas] == [["a"], ["b"], ["c"]]
    texts = [item["content"][0] for item in msgspec.to_builtins(subject.output) if item["type"] == "message"]
    assert [[one["token"] for one in text["logprobs"]] for text in texts] == [["a", "b"], ["c"]]


def test_usage_tells_cached_and_reasoning_tokens() -> None:
    subject = writer()
    write(subject, [Reasoning("Hm"), Content("Yes")])
    usage = subject.body["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (9, 5, 14)
    assert usage["input_tokens_details"]["cached_tokens"] == 4
    assert usage["output_tokens_details"]["reasoning_tokens"] == 1


def test_thoughts_can_be_taken_along() -> None:
    subject = writer(encrypted=True)
    write(subject, [Reasoning("Hm")])
    assert decode_thoughts(msgspec.to_builtins(subject.output)[0]["encrypted_content"]) == "Hm"


def test_a_failure_ends_the_stream() -> None:
    subject = writer()
    stream = subject.begin() + subject.add(ChatDelta(0, [Content("a")]))
    failed = read(stream + subject.fail(RequestError("the model's process ended", status=503)))[-1]
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["message"] == "the model's process ended"


@pytest.mark.parametrize(
    "change",
    [
        {"background": True},
        {"conversation": "conv_1"},
        {"prompt": {"id": "p"}},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function", "name": "look", "parameters": None, "defer_loading": True}]},
        {"tool_choice": {"type": "mcp", "server_label": "s"}},
        {"text": {"format": {"type": "grammar"}}},
        {"reasoning": {"mode": "pro"}},
        {"metadata": {"key": 5}},
        {"include": ["everything"]},
        {"colour": "red"},
    ],
)
def test_what_brim_does_not_have_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        ResponseRequest.model_validate({"input": "Hi", **change})


def test_half_of_a_surrogate_pair_is_refused_before_anything_is_made_of_it() -> None:
    with pytest.raises(ValueError, match="not Unicode"):
        ResponseRequest.model_validate({"input": "Hi", "metadata": {"key": "\ud800"}})
