"""Ollama's requests in the form that all protocols share: messages and their calls, options, formats, thinking."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from server.api.ollama.chat import ChatRequest
from server.api.ollama.conversation import ChatMessage, to_messages
from server.api.ollama.generate import GenerateRequest
from server.api.ollama.options import Options
from server.api.ollama.thinking import thinking
from server.chat.media import Shown
from server.chat.renderer import Renderer
from server.engine.request import Grammar
from server.errors import RequestError
from server.models.loading import LoadedModel
from server.models.parameters import Parameters
from server.models.resolve import ModelSource


def model(template: str = "{{ messages }}", **parameters: Any) -> LoadedModel:
    source = ModelSource("m", Path("m.gguf"), "d", parameters=Parameters(**parameters))
    return LoadedModel(source, cast("Any", None), Renderer(template), 0.0)


def conversation(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return to_messages([ChatMessage.model_validate(message) for message in messages], Shown())


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}}


def test_plain_messages() -> None:
    assert conversation(
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U", "images": []},
        {"role": "assistant", "content": "A", "thinking": "T"},
    ) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A", "reasoning_content": "T"},
    ]


def test_calls_get_ids_and_their_answers_are_matched_by_name_and_order() -> None:
    found = conversation(
        {"role": "assistant", "tool_calls": [call("a", x=1), call("b"), call("a", x=2)]},
        {"role": "tool", "tool_name": "b", "content": "of b"},
        {"role": "tool", "content": "of the first a"},
        {"role": "tool", "tool_name": "a", "content": "of the second a"},
        {"role": "assistant", "content": "", "tool_calls": [{**call("c"), "id": "mine", "type": "function"}]},
        {"role": "tool", "tool_call_id": "mine", "content": "of c"},
        {"role": "tool", "tool_name": "d", "content": "of none"},
    )
    calls = found[0]["tool_calls"]
    assert [one["function"] for one in calls] == [
        {"name": "a", "arguments": '{"x":1}'},
        {"name": "b", "arguments": "{}"},
        {"name": "a", "arguments": '{"x":2}'},
    ]
    assert len({one["id"] for one in calls}) == 3
    assert [(one["tool_call_id"], one["name"]) for one in found[1:4]] == [
        (calls[1]["id"], "b"),
        (calls[0]["id"], "a"),
        (calls[2]["id"], "a"),
    ]
    assert (found[5]["tool_call_id"], found[5]["name"]) == ("mine", "c")
    assert (found[6]["tool_call_id"], found[6]["name"]) == ("", "d")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user"}, "needs content"),
        ({"role": "user", "content": "x", "images": ["?"]}, "base64 text or a data URL"),
        ({"role": "user", "content": "x", "tool_calls": [call("a")]}, "cannot have tool_calls"),
        ({"role": "king", "content": "x"}, "'system', 'user', 'assistant' or 'tool'"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "{}"}}]}, "dictionary"),
    ],
)
def test_messages_that_make_no_sense_are_refused(message: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ChatMessage.model_validate(message)


def test_images_come_before_the_text() -> None:
    shown = Shown()
    images = ["aGk=", "data:image/png;base64,aG8="]
    (message,) = to_messages([ChatMessage(role="user", content="Which?", images=images)], shown)
    text, media, _ = shown.place(message["content"], [])
    assert text == "Which?"
    assert [(medium.data, medium.at) for medium in media] == [(b"hi", 0), (b"ho", 0)]


def test_options_go_over_the_model_s_own() -> None:
    options = Options(temperature=0, top_k=-1, seed=-1, stop=["x"], presence_penalty=0.5)
    request = options.generate("p", model(temperature=0.7, top_p=0.5, num_predict=9, stop=("y",)), "part", 3)
    assert request.prompt == "p"
    assert request.sampling.temperature == 0
    assert (request.sampling.top_k, request.sampling.top_p, request.sampling.seed) == (0, 0.5, None)
    assert request.sampling.presence_penalty == 0.5
    assert (request.max_tokens, request.stop, request.partition, request.logprobs) == (9, ["x"], "part", 3)
    assert Options().generate("p", model(stop=("y",)), "", None).stop == ["y"]


@pytest.mark.parametrize(("asked", "longest"), [(None, 9), (5, 5), (0, None), (-1, None), (-2, None)])
def test_how_long_an_answer_may_be(asked: int | None, longest: int | None) -> None:
    assert Options(num_predict=asked).generate("", model(num_predict=9), "", None).max_tokens == longest


def test_a_stop_string_may_stand_alone() -> None:
    assert Options.model_validate({"stop": "END"}).stop == ["END"]


@pytest.mark.parametrize(
    ("given", "grammar"),
    [
        ({}, None),
        ({"format": ""}, None),
        ({"format": None}, None),
        ({"format": "json"}, Grammar("json_object", "")),
        ({"format": {"type": "string"}}, Grammar("json_schema", '{"type":"string"}')),
    ],
)
def test_formats(given: dict[str, Any], grammar: Grammar | None) -> None:
    assert ChatRequest.model_validate({"model": "m", **given}).grammar == grammar


def test_fields_that_are_null_count_as_left_out() -> None:
    nulls = {"stream": None, "options": None, "tools": None, "think": None, "keep_alive": None, "logprobs": None}
    request = ChatRequest.model_validate({"name": "m", **nulls})
    assert (request.model, request.stream, request.keep_alive, request.options) == ("m", True, None, Options())
    assert ChatRequest.model_validate({"model": "m", "keep_alive": -1}).keep_alive == math.inf


THINKING: list[tuple[Any, tuple[bool | None, dict[str, str]]]] = [
    (None, (None, {})),
    (True, (True, {})),
    (False, (False, {})),
    ("high", (True, {"reasoning_effort": "high"})),
]


@pytest.mark.parametrize(("think", "result"), THINKING)
def test_thinking(think: Any, result: tuple[bool | None, dict[str, str]]) -> None:
    assert thinking(model("{% if enable_thinking %}<think>{% endif %}"), think) == result


def test_a_model_that_cannot_think_is_not_asked_to() -> None:
    assert thinking(model(), False) == (False, {})
    for think in (True, "low"):
        with pytest.raises(RequestError, match="does not support thinking"):
            thinking(model(), cast("Any", think))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"raw": True, "system": "S"}, "raw prompt"),
        ({"raw": True, "template": "{{ messages }}"}, "raw prompt"),
        ({"suffix": "x", "system": "S"}, "gap"),
        ({"template": "{{ .Prompt }}"}, "Go template"),
        ({"context": [-1]}, "context"),
        ({"context": [1], "raw": True}, "raw prompt"),
        ({"context": [1], "suffix": "x"}, "gap"),
        ({"images": ["a"]}, "base64 text or a data URL"),
        ({"images": ["aGk="], "raw": True}, "images cannot be had with raw, suffix or context"),
        ({"width": 512}, "makes no images"),
        ({"think": "much"}, "low"),
        ({"format": 5}, "format"),
        ({"top_logprobs": 21}, "less than or equal to 20"),
    ],
)
def test_what_generate_refuses(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        GenerateRequest.model_validate({"model": "m", "prompt": "p", **given})


def test_what_python_s_client_always_sends_is_taken() -> None:
    sent = {"prompt": "p", "suffix": "", "system": "", "template": "", "raw": False, "stream": False}
    request = GenerateRequest.model_validate({"model": "m", **sent})
    assert request.template is None
    task = request.task(model(), "")
    assert task.messages == [{"role": "user", "content": "p"}]
