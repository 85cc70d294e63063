"""llama-server's own endpoints with a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from server.api.unsupported import UNSUPPORTED
from tests.conftest import CLIENT

if TYPE_CHECKING:
    from tests.conftest import RunningServer

GREEDY = {"model": "filler", "temperature": 0, "n_predict": 8, "ignore_eos": True}
PROMPT = "Once upon a time"


def ask(server: RunningServer, path: str, body: dict[str, Any]) -> Any:
    answer = server.post(path, {"model": "filler", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def complete(server: RunningServer, **fields: Any) -> Any:
    return ask(server, "/completion", {**GREEDY, "prompt": PROMPT, **fields})


def streamed(server: RunningServer, path: str = "/completion", **fields: Any) -> list[dict[str, Any]]:
    answer = server.post(path, {**GREEDY, **fields, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]


def test_a_completion_has_llama_servers_form(text_server: RunningServer) -> None:
    answer = complete(text_server, return_tokens=True)
    assert (answer["stop"], answer["stop_type"], answer["stopping_word"]) == (True, "limit", "")
    assert (answer["model"], answer["index"], answer["prompt"]) == ("filler", 0, PROMPT)
    assert answer["tokens_predicted"] == len(answer["tokens"]) == 8
    assert answer["tokens_evaluated"] == len(
        ask(text_server, "/tokenize", {"content": PROMPT, "add_special": True})["tokens"]
    )
    assert answer["truncated"] is False
    assert answer["timings"]["predicted_n"] == 8
    settings = answer["generation_settings"]
    assert (settings["temperature"], settings["n_predict"], settings["top_k"], settings["n_ctx"]) == (0, 8, 40, 512)
    assert ask(text_server, "/detokenize", {"tokens": answer["tokens"]})["content"] == answer["content"]
    openai = ask(
        text_server, "/v1/completions", {"prompt": PROMPT, "temperature": 0, "max_tokens": 8, "ignore_eos": True}
    )
    assert answer["content"] == openai["choices"][0]["text"]


def test_a_stream_tells_pieces_and_at_last_everything_else(text_server: RunningServer) -> None:
    whole = complete(text_server, return_tokens=True)
    *pieces, last = streamed(text_server, prompt=PROMPT)
    assert [piece["stop"] for piece in pieces] == [False] * len(pieces)
    assert set(pieces[0]) == {"index", "content", "tokens", "stop"}
    assert "".join(piece["content"] for piece in pieces) == whole["content"]
    assert [token for piece in pieces for token in piece["tokens"]] == whole["tokens"]
    assert (last["stop"], last["content"], last["stop_type"]) == (True, "", "limit")
    assert last["tokens_predicted"] == 8


@pytest.mark.parametrize("path", ["/completion", "/v1/completions", "/v1/chat/completions"])
def test_a_stream_tells_how_far_the_prompt_has_come(text_server: RunningServer, path: str) -> None:
    text = f"Tell it to {path} " * 20
    fields = {"messages": [{"role": "user", "content": text}]} if "chat" in path else {"prompt": text}
    body = {"model": "filler", "max_tokens" if "v1" in path else "n_predict": 4, "stream": True, **fields}
    for cached in (False, True):
        answer = text_server.post(path, {**body, "return_progress": True})
        assert answer.status_code == 200, answer.text
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line[6:] not in ("", "[DONE]")]
        told = [event["prompt_progress"] for event in events if "prompt_progress" in event]
        assert all("prompt_progress" in event for event in events[: len(told)])
        begun, *_, ended = told
        assert begun["processed"] == begun["cache"]
        assert (begun["cache"] == begun["total"] - 1) == cached
        assert ended["processed"] == ended["total"] == begun["total"] > 0
        assert [each["processed"] for each in told] == sorted({each["processed"] for each in told})
    assert "prompt_progress" not in text_server.post(path, body).text


def test_several_prompts_of_any_kind_give_a_list(text_server: RunningServer) -> None:
    ids = ask(text_server, "/tokenize", {"content": PROMPT, "add_special": True})["tokens"]
    mixed = [*ids[:2], ask(text_server, "/detokenize", {"tokens": ids[2:]})["content"]]
    prompts: list[Any] = [PROMPT, ids, mixed, {"prompt_string": PROMPT}]
    answers = complete(text_server, prompt=prompts)
    assert [answer["index"] for answer in answers] == [0, 1, 2, 3]
    assert len({answer["content"] for answer in answers[:2] + answers[3:]}) == 1
    assert complete(text_server, prompt=ids)["content"] == answers[0]["content"]
    pieces = [""] * 4
    for event in streamed(text_server, prompt=prompts):
        pieces[event["index"]] += event["content"]
    assert pieces == [answer["content"] for answer in answers]
    assert [answer["index"] for answer in complete(text_server, n_cmpl=3, n_predict=2)] == [0, 1, 2]


def test_a_stop_string_is_told(text_server: RunningServer) -> None:
    whole = complete(text_server)["content"]
    stop = whole[3:6]
    answer = complete(text_server, stop=[stop, "never said"])
    assert (answer["stop_type"], answer["stopping_word"]) == ("word", stop)
    assert answer["content"] == whole[: whole.index(stop)]


def test_the_likeliest_tokens_are_told(text_server: RunningServer) -> None:
    answer = complete(text_server, n_probs=3, n_predict=4)
    places = answer["completion_probabilities"]
    assert len(places) == 4
    assert b"".join(bytes(place["bytes"]) for place in places).decode() == answer["content"]
    for place in places:
        assert place["logprob"] <= 0
        assert place["top_logprobs"][0]["id"] == place["id"]
        assert len(place["top_logprobs"]) == 3
    events = streamed(text_server, prompt=PROMPT, n_probs=1, n_predict=4)
    assert sum(len(event.get("completion_probabilities", [])) for event in events) == 4


@pytest.mark.parametrize("form", ["pairs", "object", "text"])
def test_a_bias_of_false_bans_a_token(text_server: RunningServer, form: str) -> None:
    first = complete(text_server, n_predict=1, return_tokens=True)
    token, text = first["tokens"][0], first["content"]
    bias: Any = {"pairs": [[token, False]], "object": {str(token): False}, "text": [[text, False]]}[form]
    assert complete(text_server, n_predict=1, return_tokens=True, logit_bias=bias)["tokens"] != [token]


def test_a_grammar_or_a_schema_binds_the_answer(text_server: RunningServer) -> None:
    free = {"ignore_eos": False, "n_predict": 60}
    assert complete(text_server, grammar='root ::= "yes" | "no"', **free)["content"] in ("yes", "no")
    found = complete(text_server, json_schema={"enum": ["red", "blue"]}, **free)["content"]
    assert json.loads(found) in ("red", "blue")


def test_only_the_fields_asked_for_are_told(text_server: RunningServer) -> None:
    fields = ["content", "generation_settings/n_predict", "nothing", "timings/nothing"]
    answer = complete(text_server, response_fields=fields)
    assert set(answer) == {"content", "generation_settings/n_predict"}


def test_openais_paths_may_do_without_their_version(text_server: RunningServer) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    chat = {"messages": messages, "max_completion_tokens": 4, "temperature": 0}
    answer = ask(text_server, "/chat/completions", chat)
    assert answer["choices"] == ask(text_server, "/v1/chat/completions", chat)["choices"]
    assert ask(text_server, "/responses", {"input": "Hi", "max_output_tokens": 4})["object"] == "response"
    count = {"object": "response.input_tokens", "input_tokens": answer["usage"]["prompt_tokens"]}
    for path in ("/chat/completions/input_tokens", "/v1/chat/completions/input_tokens"):
        assert ask(text_server, path, {"messages": messages}) == count
    assert ask(text_server, "/responses/input_tokens", {"input": messages}) == count
    for path in ("/models", "/health"):
        assert CLIENT.get(text_server.url + path).json() == CLIENT.get(text_server.url + "/v1" + path).json()


def test_what_has_no_meaning_here_passes(text_server: RunningServer) -> None:
    passing = {"id_slot": -1, "n_keep": 0, "typical_p": 1.0, "mirostat": 0, "mirostat_tau": 5.0, "dry_multiplier": 0.0}
    assert complete(text_server, n_predict=1, **passing, t_max_predict_ms=0)["tokens_predicted"] == 1


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"mirostat": 2}, "mirostat"),
        ({"typical_p": 0.5}, "typical_p"),
        ({"dry_multiplier": 0.8}, "dry_multiplier"),
        ({"samplers": ["top_k"]}, "samplers"),
        ({"lora": [{"id": 0, "scale": 1}]}, "lora"),
        ({"post_sampling_probs": True}, "post_sampling_probs"),
        ({"n_probs": 21}, "n_probs"),
        ({"n_predict": -2}, "n_predict"),
        ({"frobnicate": 1}, "frobnicate"),
        ({"prompt": {"prompt_string": "x", "multimodal_data": ["aGk="]}}, "prompt"),
        ({"logit_bias": [[5, True]]}, "logit_bias[0][1]"),
    ],
)
def test_what_brim_has_not_is_refused_by_name(text_server: RunningServer, changed: dict[str, Any], param: str) -> None:
    answer = text_server.post("/completion", {**GREEDY, "prompt": PROMPT, **changed})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_tokens_come_with_their_pieces(text_server: RunningServer) -> None:
    plain = ask(text_server, "/tokenize", {"content": "naïve 🦊"})["tokens"]
    pieces = ask(text_server, "/tokenize", {"content": "naïve 🦊", "with_pieces": True})["tokens"]
    assert [piece["id"] for piece in pieces] == plain
    spelled = b"".join(p.encode() if isinstance(p := one["piece"], str) else bytes(p) for one in pieces)
    assert spelled.decode() == "naïve 🦊"
    assert ask(text_server, "/detokenize", {"tokens": plain})["content"] == "naïve 🦊"
    assert ask(text_server, "/tokenize", {"content": "x", "model": "encoder", "add_special": True})["tokens"][0] == 2
    answer = text_server.post("/detokenize", {"model": "filler", "tokens": [99999]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tokens")


def test_a_template_is_applied_without_an_answer(text_server: RunningServer) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello fox"}]
    prompt = ask(text_server, "/apply-template", {"messages": messages})["prompt"]
    assert prompt.index("Be brief.") < prompt.index("Hello fox")
    said = ask(text_server, "/completion", {**GREEDY, "prompt": prompt})["content"]
    chat = {"messages": messages, "temperature": 0, "max_tokens": 8, "ignore_eos": True}
    assert ask(text_server, "/v1/chat/completions", chat)["choices"][0]["message"]["content"] == said


def test_a_gap_is_filled(text_server: RunningServer) -> None:
    body = {**GREEDY, "input_prefix": "Once upon a", "input_suffix": "lived a fox."}
    answer = ask(text_server, "/infill", body)
    openai = {"prompt": "Once upon a", "suffix": "lived a fox.", "temperature": 0, "max_tokens": 8, "ignore_eos": True}
    assert answer["content"] == ask(text_server, "/v1/completions", openai)["choices"][0]["text"]
    extra = [{"filename": "a.txt", "text": "There was a fox."}]
    longer = ask(text_server, "/infill", {**body, "input_extra": extra, "prompt": " time"})
    assert longer["tokens_evaluated"] > answer["tokens_evaluated"]
    *_, last = streamed(text_server, "/infill", input_prefix="a", input_suffix="b")
    assert last["stop"]
    refused = text_server.post("/infill", {**body, "model": "demo"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input_suffix")


def test_embeddings_are_normalized_as_wanted(text_server: RunningServer) -> None:
    def row(**fields: Any) -> Any:
        (answer,) = ask(text_server, "/embedding", {"model": "encoder", "content": "a cat sat.", **fields})
        return np.array(answer["embedding"][0])

    raw = row(embd_normalize=-1)
    assert np.allclose(row(), raw / np.linalg.norm(raw), atol=1e-3)
    assert np.allclose(row(embd_normalize=0), raw / np.abs(raw).max(), atol=1e-3)
    assert np.allclose(row(embd_normalize=1), raw / np.abs(raw).sum(), atol=1e-3)
    several = ask(text_server, "/embeddings", {"model": "encoder", "input": ["a", "b"]})
    assert [one["index"] for one in several] == [0, 1]


def test_props_and_slots_tell_of_a_model(text_server: RunningServer) -> None:
    props = text_server.get("/props?model=filler").json()
    assert props["total_slots"] == 4
    assert props["default_generation_settings"]["n_ctx"] == 512
    assert props["default_generation_settings"]["params"]["min_p"] == 0.05
    assert "messages" in props["chat_template"]
    assert "/" not in props["model_path"]
    slots = text_server.get("/slots?model=filler&fail_on_no_slot=1").json()
    assert [slot["id"] for slot in slots] == [0, 1, 2, 3]
    assert not any(slot["is_processing"] for slot in slots)
    meta = {model["id"]: model["meta"] for model in text_server.get("/v1/models").json()["data"]}
    assert meta["filler"]["n_vocab"] == 2048
    assert text_server.get("/props").status_code == 400  # there are several models


@pytest.mark.parametrize("path", [*UNSUPPORTED, "/v1/audio/transcriptions", "/v1/files/file-1/content"])
def test_what_brim_has_not_is_refused_in_a_sentence(text_server: RunningServer, path: str) -> None:
    for answer in (text_server.post(path, {}), text_server.get(path)):
        assert answer.status_code == 501
        error = answer.json()["error"]
        assert error["code"] == "not_supported"
        assert error["message"] in UNSUPPORTED.values()


def test_what_no_message_can_hold_is_refused(text_server: RunningServer) -> None:
    headers = {"Content-Type": "application/json"}
    half = CLIENT.post(f"{text_server.url}/tokenize", content='{"model":"demo","content":"\\ud800"}', headers=headers)
    assert half.status_code == 400
    assert "surrogate" in half.json()["error"]["message"]
    for changed in ({"top_k": 10**30}, {"logit_bias": {str(10**30): 1}}):
        answer = text_server.post("/v1/completions", {"model": "demo", "prompt": "x", "max_tokens": 1, **changed})
        assert answer.status_code == 400


def test_a_faulty_query_parameter_is_named(text_server: RunningServer) -> None:
    answer = text_server.get("/slots?model=demo&fail_on_no_slot=perhaps")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "fail_on_no_slot")


def test_more_continuations_than_may_wait_are_refused_at_once(text_server: RunningServer) -> None:
    answer = text_server.post("/completion", {**GREEDY, "prompt": ["a", "b", "c"], "n_cmpl": 128})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n_cmpl")
    assert "384 continuations" in answer.json()["error"]["message"]


def test_an_answer_whose_time_was_over_is_not_truncated_by_the_context(text_server: RunningServer) -> None:
    timed = complete(text_server, n_predict=400, t_max_predict_ms=1)
    assert (timed["stop_type"], timed["truncated"]) == ("limit", False)
    assert timed["tokens_predicted"] < 400
    full = complete(text_server, n_predict=-1)
    assert (full["stop_type"], full["truncated"]) == ("limit", True)
