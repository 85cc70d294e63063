"""An answer's events as Anthropic's content blocks, checked against how Anthropic's own client joins a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from server.api.anthropic.output import MessageWriter
from server.chat.answer import ChatDelta
from server.chat.events import CallArguments, CallStart, Content, Event, Reasoning
from server.engine.messages import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.chat.answer import ChatFinish

USAGE = Usage(prompt_tokens=9, completion_tokens=5, cached_tokens=4)
EVENTS: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def writer(*, stop: Sequence[str] = (), max_tokens: int = 100, shows_thinking: bool = True) -> MessageWriter:
    return MessageWriter("demo", stop_sequences=stop, max_tokens=max_tokens, shows_thinking=shows_thinking)


def write(
    subject: MessageWriter, events: Sequence[Event], finish: ChatFinish = "stop", stop_string: str | None = None
) -> list[dict[str, Any]]:
    """The whole stream, each event's data."""
    stream = subject.begin(9)
    for event in events:
        stream += subject.add(ChatDelta(0, [event], reasoning_tokens=isinstance(event, Reasoning)))
    stream += subject.add(ChatDelta(0, [], finish=finish, stop_string=stop_string)) + subject.end(USAGE)
    found: list[dict[str, Any]] = []
    for event in stream.decode().split("\n\n")[:-1]:
        name, data = event.split("\n", 1)
        found.append(msgspec.json.decode(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def joined(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What Anthropic's client makes of a stream."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in events:
        if event["type"] != "ping":
            snapshot = accumulate_event(
                event=EVENTS.validate_python(event), current_snapshot=snapshot, json_bufs=buffers
            )
    return snapshot.to_dict()


PIECES = st.text(min_size=1, max_size=6)
CALL = st.tuples(st.sampled_from(["look", "write"]), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    for kind in draw(st.lists(st.sampled_from(["thoughts", "text", "call"]), max_size=5)):
        if kind == "call":
            name, arguments = draw(CALL)
            index = sum(isinstance(event, CallStart) for event in events)
            text = msgspec.json.encode(arguments).decode()
            cut = draw(st.integers(0, len(text)))
            events.append(CallStart(index, name))
            events += [CallArguments(index, part) for part in (text[:cut], text[cut:]) if part]
        else:
            pieces = draw(st.lists(PIECES, min_size=1, max_size=3))
            events += [Content(piece) if kind == "text" else Reasoning(piece) for piece in pieces]
    return events


@given(answers(), st.sampled_from(["stop", "length", "tool_calls"]))
def test_the_client_joins_a_stream_to_the_whole_answer(events: list[Event], finish: ChatFinish) -> None:
    subject = writer(max_tokens=5)
    streamed = write(subject, events, finish)
    assert joined(streamed) == msgspec.to_builtins(subject.message)
    open_block: int | None = None
    for event in streamed:  # one block after the other
        match event["type"]:
            case "content_block_start":
                assert open_block is None
                open_block = event["index"]
            case "content_block_delta":
                assert open_block == event["index"]
            case "content_block_stop":
                assert open_block == event["index"]
                open_block = None
            case _:
                pass
    assert open_block is None


def test_events_come_in_anthropics_order() -> None:
    events = write(writer(), [Reasoning("Hm"), Content("Yes"), CallStart(0, "look"), CallArguments(0, '{"a":1}')])
    assert [event["type"] for event in events] == [
        "message_start",
        *("content_block_start", "ping", "content_block_delta", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    deltas = [event["delta"]["type"] for event in events if event["type"] == "content_block_delta"]
    assert deltas == ["thinking_delta", "signature_delta", "text_delta", "input_json_delta"]


def test_usage_tells_new_from_cached_tokens() -> None:
    subject = writer()
    write(subject, [Reasoning("Hm"), Content("Yes")])
    usage = subject.message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (5, 4, 5)
    assert usage.output_tokens_details.thinking_tokens == 1


def test_only_a_stop_sequence_of_the_request_is_named() -> None:
    asked, unasked = writer(stop=["END"]), writer()
    write(asked, [Content("a")], "stop", "END")
    write(unasked, [Content("a")], "stop", "END")
    assert (asked.message.stop_reason, asked.message.stop_sequence) == ("stop_sequence", "END")
    assert (unasked.message.stop_reason, unasked.message.stop_sequence) == ("end_turn", None)


def test_a_full_context_is_told_from_a_limit() -> None:
    full, limited = writer(max_tokens=100), writer(max_tokens=5)
    write(full, [Content("a")], "length")
    write(limited, [Content("a")], "length")
    assert full.message.stop_reason == "model_context_window_exceeded"
    assert limited.message.stop_reason == "max_tokens"


def test_a_time_that_is_over_is_no_full_context() -> None:
    timed = writer(max_tokens=100)
    write(timed, [Content("a")], "time")
    assert timed.message.stop_reason == "max_tokens"


def test_thoughts_can_be_left_out() -> None:
    subject = writer(shows_thinking=False)
    events = write(subject, [Reasoning("secret"), Content("Yes")])
    assert "secret" not in str(events)
    assert [msgspec.to_builtins(block)["type"] for block in subject.message.content] == ["thinking", "text"]


def test_a_call_cut_short_keeps_what_is_whole() -> None:
    subject = writer(max_tokens=5)
    write(subject, [CallStart(0, "look"), CallArguments(0, '{"a": 1, "b": [2, 3')], "length")
    assert msgspec.to_builtins(subject.message.content)[0]["input"] == {"a": 1, "b": [2, 3]}
