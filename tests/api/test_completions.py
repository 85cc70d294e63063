"""POST /v1/completions with a real server: gaps, several prompts, token arrays, echo, best_of and constraints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import FILL_TOKENS

if TYPE_CHECKING:
    from tests.conftest import RunningServer

PATH = "/v1/completions"
GREEDY = {"model": "filler", "temperature": 0, "max_tokens": 8, "ignore_eos": True}


def complete(server: RunningServer, **fields: Any) -> dict[str, Any]:
    answer = server.post(PATH, {**GREEDY, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def streamed(server: RunningServer, **fields: Any) -> list[dict[str, Any]]:
    answer = server.post(PATH, {**GREEDY, **fields, "stream": True})
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def tokens(server: RunningServer, text: str, **fields: Any) -> list[int]:
    return server.post("/tokenize", {"model": "filler", "content": text, **fields}).json()["tokens"]


def test_a_suffix_makes_a_gap_to_fill(text_server: RunningServer) -> None:
    prefix, suffix = "Once upon a", "lived a fox."
    before, after = (tokens(text_server, text, parse_special=False) for text in (prefix, suffix))
    bos = tokens(text_server, "", add_special=True)
    spelled = [*bos, FILL_TOKENS["pre"], *before, FILL_TOKENS["suf"], *after, FILL_TOKENS["mid"]]
    filled = complete(text_server, prompt=prefix, suffix=suffix)
    assert filled["usage"]["prompt_tokens"] == len(spelled)
    assert filled["choices"][0]["text"] == complete(text_server, prompt=spelled)["choices"][0]["text"]


def test_a_marker_spelled_out_beside_a_gap_is_text(text_server: RunningServer) -> None:
    mark = text_server.post("/detokenize", {"model": "filler", "tokens": [FILL_TOKENS["mid"]]}).json()["content"]
    assert tokens(text_server, mark) == [FILL_TOKENS["mid"]]
    plain = complete(text_server, prompt="x", suffix="y")["usage"]["prompt_tokens"]
    spelled = complete(text_server, prompt=f"x{mark}", suffix="y")["usage"]["prompt_tokens"]
    assert spelled > plain
    assert FILL_TOKENS["mid"] not in tokens(text_server, mark, parse_special=False)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "demo", "suffix": "end"}, "no fill-in-the-middle tokens"),
        ({"suffix": "end", "echo": True}, "echo and suffix"),
        ({"prompt": ["x"] * 129}, "at most 128"),
        ({"prompt": ["a", "b", "c"], "n": 128}, "asks for 384 continuations in all, and at most 256 may wait"),
        ({"prompt": ["a", "b", "c"], "best_of": 100}, "asks for 300 continuations"),
        ({"prompt": [5000]}, "token 5000 is not in the vocabulary"),
        ({"logprobs": 21}, "less than or equal to 20"),
        ({"guided_choice": ["a"], "response_format": {"type": "json_object"}}, "only one of"),
    ],
)
def test_what_cannot_be_had_is_refused(text_server: RunningServer, fields: dict[str, Any], words: str) -> None:
    answer = text_server.post(PATH, {**GREEDY, "prompt": "x", **fields})
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]


def test_several_prompts_and_answers_keep_their_order_whole_and_streamed(text_server: RunningServer) -> None:
    prompts: list[Any] = ["Once upon a time", tokens(text_server, "The fox", add_special=True)]
    whole = complete(text_server, prompt=prompts, n=2)["choices"]
    assert [choice["index"] for choice in whole] == [0, 1, 2, 3]
    alone = [complete(text_server, prompt=prompt)["choices"][0]["text"] for prompt in prompts]
    assert [choice["text"] for choice in whole] == [alone[0], alone[0], alone[1], alone[1]]
    texts = [""] * 4
    for chunk in streamed(text_server, prompt=prompts, n=2):
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == [choice["text"] for choice in whole]


@pytest.mark.parametrize("as_tokens", [False, True])
def test_an_echo_without_answer_gives_the_prompts_log_probabilities(
    text_server: RunningServer, as_tokens: bool
) -> None:
    text = "Once upon a time"
    prompt = tokens(text_server, text) if as_tokens else text
    choice = complete(text_server, prompt=prompt, echo=True, max_tokens=0, logprobs=20)["choices"][0]
    assert choice["text"] == text
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == text
    assert logprobs["text_offset"][0] == 0
    assert all(len(top) >= 20 for top in logprobs["top_logprobs"] if top)
    pieces = "".join(
        piece
        for chunk in streamed(text_server, prompt=prompt, echo=True, logprobs=1)
        for one in chunk["choices"]
        for piece in one["logprobs"]["tokens"]
    )
    assert pieces.startswith(text)


def test_the_best_of_several_is_the_likeliest(text_server: RunningServer) -> None:
    asked = {"prompt": "Once", "temperature": 1.5, "seed": 7, "logprobs": 0}
    best = complete(text_server, **asked, best_of=6)["choices"]
    every = complete(text_server, **asked, n=6)["choices"]
    assert len(best) == 1
    means = {one["text"]: sum(one["logprobs"]["token_logprobs"]) for one in every}
    assert means[best[0]["text"]] == max(means.values())


def test_a_choice_and_a_format_bind_the_answer(text_server: RunningServer) -> None:
    chosen = complete(text_server, prompt="x", guided_choice=["north", "south"], ignore_eos=False)
    assert chosen["choices"][0]["text"] in ("north", "south")
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    made = complete(text_server, prompt="x", response_format=form, ignore_eos=False, max_tokens=60, temperature=1)
    assert json.loads(made["choices"][0]["text"])["n"] in (1, 2)


@pytest.mark.parametrize("fields", [{"n": 3}, {"n": 2, "best_of": 4, "temperature": 1.5, "seed": 3}])
def test_each_echo_has_the_prompts_log_probabilities(text_server: RunningServer, fields: dict[str, Any]) -> None:
    text = "Once upon a time"
    asked = {"prompt": [text, "The fox"], "echo": True, "logprobs": 1, "max_tokens": 3, **fields}
    for whole in complete(text_server, **asked)["choices"]:
        assert "".join(whole["logprobs"]["tokens"]) == whole["text"]
        assert whole["logprobs"]["text_offset"][0] == 0
    if "best_of" in fields:
        return
    read: dict[int, list[str]] = {}
    for chunk in streamed(text_server, **asked):
        for choice in chunk["choices"]:
            read.setdefault(choice["index"], []).extend(choice["logprobs"]["tokens"])
    assert sorted(read) == list(range(2 * fields["n"]))
    assert all("".join(tokens).startswith(text if index < fields["n"] else "The fox") for index, tokens in read.items())


def test_timings_of_several_prompts_are_those_of_all(text_server: RunningServer) -> None:
    asked = {"prompt": ["Once upon a time", "The"], "timings": True, "cache_prompt": False}
    whole = complete(text_server, **asked)
    last = streamed(text_server, **asked)[-1]
    for told in (whole["timings"], last["timings"]):
        assert told["predicted_n"] == whole["usage"]["completion_tokens"] == 16
        assert told["cache_n"] + told["prompt_n"] == whole["usage"]["prompt_tokens"]
