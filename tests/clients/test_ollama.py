"""Ollama's own Python client against a real server with the demo model: what its users do with it."""

# The client leaves the type of its `tools` partly open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import ollama
import pytest

from tests.conftest import CLIENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import RunningServer, StartServer

MESSAGES = [{"role": "user", "content": "Hello"}]
GREEDY = {"temperature": 0, "num_predict": 24, "seed": 1}
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(start_server: StartServer, demo_gguf: Path) -> RunningServer:
    """A server of this module's own: its store is empty, and `demo` was named at its start."""
    return start_server(demo_gguf, "--ctx", "512", "--parallel", "2")


@pytest.fixture(scope="module")
def client(server: RunningServer) -> ollama.Client:
    return ollama.Client(host=server.url, trust_env=False, timeout=120)


@pytest.fixture(scope="module")
def stocked(start_server: StartServer, demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a server whose store has `mine`, which is loaded on demand."""
    from server.models.create import create
    from server.models.modelfile import parse
    from server.models.store import Store

    home = tmp_path_factory.mktemp("stocked")
    create(Store(home / "models"), "mine", parse(f'FROM {demo_gguf}\nSYSTEM "Be brief."\n'), home)
    create(Store(home / "models"), "other", parse(f"FROM {demo_gguf}\n"), home)
    server = start_server("--ctx", "512", "--parallel", "2", "--max-models", "1", ready=True, BRIM_HOME=str(home))
    yield ollama.Client(host=server.url, trust_env=False, timeout=120)


def test_what_models_there_are(client: ollama.Client) -> None:
    [model] = client.list().models
    assert model.model == "demo:latest"
    assert model.details
    assert model.details.quantization_level == "F16"
    [running] = client.ps().models
    assert running.model == "demo:latest"
    assert running.context_length == 512
    assert running.size_vram == 0
    assert running.expires_at
    assert running.expires_at > datetime(2100, 1, 1, tzinfo=UTC)
    shown = client.show("demo")
    assert shown.modelinfo
    assert shown.modelinfo["general.architecture"]
    assert shown.capabilities
    assert "completion" in shown.capabilities


def test_a_chat_whole_and_streamed_say_the_same(client: ollama.Client) -> None:
    story, options = [{"role": "user", "content": "Tell me a story."}], GREEDY | {"num_predict": 200}
    whole = client.chat("demo", story, options=options)
    assert whole.done
    assert whole.done_reason in ("stop", "length")
    assert whole.model == "demo"
    assert whole.message.role == "assistant"
    assert whole.prompt_eval_count
    assert whole.eval_count
    assert whole.total_duration
    assert whole.eval_duration
    assert whole.total_duration >= whole.eval_duration
    parts = list(client.chat("demo:latest", story, options=options, stream=True))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 2
    assert (parts[-1].done_reason, parts[-1].eval_count) == (whole.done_reason, whole.eval_count)


def test_a_conversation_goes_on(client: ollama.Client) -> None:
    first = client.chat("demo", MESSAGES, options=GREEDY)
    second = client.chat("demo", [*MESSAGES, first.message, {"role": "user", "content": "And?"}], options=GREEDY)
    assert second.prompt_eval_count
    assert first.prompt_eval_count
    assert second.prompt_eval_count > first.prompt_eval_count


def test_options_are_honoured(client: ollama.Client) -> None:
    short = client.chat("demo", MESSAGES, options={"num_predict": 3, "temperature": 0})
    assert (short.eval_count, short.done_reason) == (3, "length")
    hot = {"temperature": 1.5, "seed": 7, "num_predict": 16}
    assert client.chat("demo", MESSAGES, options=hot).message == client.chat("demo", MESSAGES, options=hot).message
    text = client.generate("demo", "Once upon a time", raw=True, options=GREEDY).response or ""
    word = text.split()[1]
    stopped = client.generate("demo", "Once upon a time", raw=True, options={**GREEDY, "stop": [word]})
    assert stopped.response == text[: text.index(word)]
    assert stopped.done_reason == "stop"
    ctx = client.chat("demo", MESSAGES, options={"num_ctx": 256, "num_gpu": 1, "num_predict": 1})
    assert ctx.eval_count == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mirostat": 1}, "options.mirostat"),
        ({"typical_p": 0.5}, "options.typical_p"),
        ({"temperature": -1}, "options.temperature"),
        ({"frobnicate": 1}, "options.frobnicate"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(
    client: ollama.Client, options: dict[str, Any], words: str
) -> None:
    for stream in (False, True):
        with pytest.raises(ollama.ResponseError, match=words) as caught:
            list(client.chat("demo", MESSAGES, options=options, stream=stream))
        assert caught.value.status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_held_to_a_schema(client: ollama.Client, stream: bool) -> None:
    options = {"temperature": 1, "seed": 3, "num_predict": 200}
    answer = client.chat("demo", MESSAGES, format=PERSON, options=options, stream=stream)
    parts = [answer] if isinstance(answer, ollama.ChatResponse) else list(answer)
    person = json.loads("".join(part.message.content or "" for part in parts))
    assert set(person) == {"name", "age"}
    assert person["age"] >= 0
    generated = client.generate("demo", "A person", format=PERSON, options=options)
    assert set(json.loads(generated.response or "")) == {"name", "age"}


def test_an_answer_in_json(client: ollama.Client) -> None:
    answer = client.chat("demo", MESSAGES, format="json", options={"temperature": 0.5, "seed": 1, "num_predict": 60})
    text = answer.message.content or ""
    if answer.done_reason == "stop":
        assert isinstance(json.loads(text), dict)
    else:
        assert text.lstrip().startswith("{")


def weather(city: str, days: int) -> str:
    """Tell the weather.

    Args:
        city: the city's name
        days: how many days ahead
    """
    return f"{city} in {days}: sun"


@pytest.mark.parametrize("stream", [False, True])
def test_tools_from_functions(client: ollama.Client, stream: bool) -> None:
    answer = client.chat("demo", MESSAGES, tools=[weather], options=GREEDY, stream=stream)
    parts = [answer] if isinstance(answer, ollama.ChatResponse) else list(answer)
    assert parts[-1].done
    for part in parts:
        for call in part.message.tool_calls or ():
            assert call.function.name == "weather"
            assert set(call.function.arguments) == {"city", "days"}
    history = [
        *MESSAGES,
        {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "X", "days": 1}}}]},
        {"role": "tool", "tool_name": "weather", "content": weather("X", 1)},
    ]
    assert client.chat("demo", history, tools=[weather], options=GREEDY).done


def test_log_probabilities(client: ollama.Client) -> None:
    answer = client.chat("demo", MESSAGES, logprobs=True, top_logprobs=2, options=GREEDY)
    assert answer.logprobs
    assert "".join(one.token for one in answer.logprobs).startswith((answer.message.content or "")[:5])
    for one in answer.logprobs:
        assert one.top_logprobs
        assert len(one.top_logprobs) == 2
        assert one.logprob <= 0


@pytest.mark.parametrize("streamed", [False, True])
def test_a_prompt_goes_on_from_the_last_answers_context(client: ollama.Client, streamed: bool) -> None:
    def last(prompt: str, context: list[int] | None = None) -> ollama.GenerateResponse:
        if streamed:
            return list(client.generate("demo", prompt, context=context, options=GREEDY, stream=True))[-1]
        return client.generate("demo", prompt, context=context, options=GREEDY)

    first = last("My cat is called Tom.")
    assert first.context
    assert first.prompt_eval_count
    assert first.eval_count
    assert len(first.context) == first.prompt_eval_count + first.eval_count
    second = last("What is the name of my cat?", list(first.context))
    alone = last("What is the name of my cat?")
    assert second.context
    assert second.context[: len(first.context)] == first.context
    assert second.prompt_eval_count
    assert alone.prompt_eval_count
    assert second.prompt_eval_count - len(first.context) in (
        alone.prompt_eval_count,
        alone.prompt_eval_count - 1,
    )  # BOS
    raw = client.generate("demo", "Once", raw=True, options=GREEDY)
    assert raw.context is None


def test_a_prompt_is_continued_raw_or_as_a_chat(client: ollama.Client) -> None:
    whole = client.generate("demo", "Hello", options=GREEDY)
    assert whole.response == client.chat("demo", MESSAGES, options=GREEDY).message.content
    parts = list(client.generate("demo", "Hello", options=GREEDY, stream=True))
    assert "".join(part.response or "" for part in parts) == whole.response
    assert parts[-1].done_reason == whole.done_reason
    template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    own = client.generate("demo", "Hello", system="S", template=template, options=GREEDY)
    assert own.response == client.generate("demo", "<system>S<user>Hello", raw=True, options=GREEDY).response


def test_what_has_no_vision_and_no_gaps_says_so(client: ollama.Client) -> None:
    picture = [{"role": "user", "content": "What is it?", "images": [b"\x89PNG"]}]
    with pytest.raises(ollama.ResponseError, match="no vision") as caught:
        client.chat("demo", picture)
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="no vision"):
        client.generate("demo", "What is it?", images=[b"\x89PNG"])
    with pytest.raises(ollama.ResponseError, match="cannot fill gaps"):
        client.generate("demo", "def f():", suffix="return 1")
    with pytest.raises(ollama.ResponseError, match="Go template"):
        client.generate("demo", "Hello", template="{{ .Prompt }}")
    with pytest.raises(ollama.ResponseError, match="not in the vocabulary"):
        client.generate("demo", "Hello", context=[1_000_000])


def test_an_unknown_model_is_a_404(client: ollama.Client) -> None:
    for ask in (
        lambda: client.chat("absent", MESSAGES),
        lambda: list(client.chat("absent", MESSAGES, stream=True)),
        lambda: client.generate("absent", "x"),
        lambda: client.generate("absent", "", keep_alive=0),
        lambda: client.show("absent"),
        lambda: client.embed("absent", "x"),
        lambda: client.pull("absent"),
        lambda: client.delete("absent"),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            ask()
        assert caught.value.status_code == 404
        assert "absent" in caught.value.error


def test_a_prompt_that_does_not_fit_is_a_400(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="context") as caught:
        list(client.chat("demo", [{"role": "user", "content": "word " * 2000}], stream=True))
    assert caught.value.status_code == 400


def test_what_was_named_at_the_start_stays(client: ollama.Client) -> None:
    assert client.generate("demo", "", keep_alive="10m").done_reason == "load"
    assert client.chat("demo", MESSAGES, keep_alive=0, options=GREEDY).done
    assert [model.model for model in client.ps().models] == ["demo:latest"]
    with pytest.raises(ollama.ResponseError, match="brim stop") as caught:
        client.generate("demo", "", keep_alive=0)
    assert caught.value.status_code == 409


def test_vectors(client: ollama.Client) -> None:
    answer = client.embed("demo", ["one", "two", "one"])
    assert len(answer.embeddings) == 3
    assert answer.prompt_eval_count
    assert sum(x * x for x in answer.embeddings[0]) == pytest.approx(1, abs=1e-4)
    assert answer.embeddings[0] == pytest.approx(answer.embeddings[2], abs=1e-4)
    assert answer.embeddings[0] != pytest.approx(answer.embeddings[1], abs=1e-4)
    cut = client.embed("demo", "one", dimensions=8).embeddings
    assert [len(row) for row in cut] == [8]
    assert client.embed("demo", []).embeddings == []
    old = client.embeddings("demo", "one").embedding
    assert len(old) == len(answer.embeddings[0])


async def test_the_asynchronous_client(server: RunningServer) -> None:
    client = ollama.AsyncClient(host=server.url, trust_env=False, timeout=120)
    whole = await client.chat("demo", MESSAGES, options=GREEDY)
    parts = [part async for part in await client.chat("demo", MESSAGES, options=GREEDY, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == whole.message.content


def test_models_are_loaded_on_demand_and_unloaded(stocked: ollama.Client) -> None:
    assert stocked.ps().models == []
    answer = stocked.chat("mine", MESSAGES, options=GREEDY, keep_alive=-1)
    assert answer.load_duration
    assert answer.load_duration > 0
    [running] = stocked.ps().models
    assert running.expires_at
    assert running.expires_at > datetime(2100, 1, 1, tzinfo=UTC)
    stocked.generate("mine", "", keep_alive="10m")
    [running] = stocked.ps().models
    assert running.expires_at
    assert 500 < (running.expires_at - datetime.now(UTC)).total_seconds() <= 600
    assert stocked.generate("other", "Hello", options=GREEDY).done  # --max-models 1: `mine` makes way
    assert [model.model for model in stocked.ps().models] == ["other:latest"]
    assert stocked.chat("other", []).done_reason == "load"
    assert stocked.chat("other", [], keep_alive=0).done_reason == "unload"
    assert stocked.ps().models == []


def wait_until_nothing_is_loaded(client: ollama.Client) -> None:
    deadline = time.monotonic() + 60
    while client.ps().models:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_model_kept_for_no_time_goes_after_its_answer_and_not_before(stocked: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 400}
    long = {"type": "string", "minLength": 1000}  # not over before the client has asked what is loaded
    parts = stocked.chat("mine", MESSAGES, options=options, format=long, keep_alive=0, stream=True)
    first = next(parts)
    assert [model.model for model in stocked.ps().models] == ["mine:latest"]
    rest = list(parts)
    assert rest[-1].done
    wait_until_nothing_is_loaded(stocked)
    whole = stocked.chat("mine", MESSAGES, options=options, format=long, keep_alive=0)
    assert whole.message.content == "".join(part.message.content or "" for part in [first, *rest])
    wait_until_nothing_is_loaded(stocked)


def test_a_client_that_hangs_up_holds_no_model(stocked: ollama.Client) -> None:
    endless = {"temperature": 1, "num_predict": -1}
    parts = stocked.generate("mine", "Once", raw=True, options=endless, keep_alive=0, stream=True)
    next(parts)
    del parts  # closes the connection
    wait_until_nothing_is_loaded(stocked)


def test_a_model_is_made_used_and_removed(stocked: ollama.Client) -> None:
    steps = list(stocked.create("pirate", from_="mine", system="Arr.", parameters={"num_predict": 4}, stream=True))
    assert steps[-1].status == "success"
    answer = stocked.chat("pirate", MESSAGES, options={"temperature": 0})
    assert answer.eval_count == 4
    assert stocked.create("pirate", from_="mine", parameters={"num_predict": 2}).status == "success"
    assert stocked.chat("pirate", MESSAGES, options={"temperature": 0}).eval_count == 2
    assert stocked.copy("pirate", "corsair").status == "success"
    assert stocked.delete("pirate").status == "success"
    assert {model.model for model in stocked.list().models} == {"mine:latest", "other:latest", "corsair:latest"}
    assert "num_predict" in (stocked.show("corsair").parameters or "")
    assert stocked.pull("corsair").status == "success"
    with pytest.raises(ollama.ResponseError, match="does not push"):
        stocked.push("corsair")


def test_a_model_is_made_of_a_file_that_the_client_sends(
    stocked: ollama.Client, demo_gguf: Path, tmp_path: Path
) -> None:
    sent = tmp_path / "sent.gguf"
    sent.write_bytes(demo_gguf.read_bytes() + bytes(32))  # another file than that of the models there
    digest = stocked.create_blob(sent)
    assert stocked.create_blob(sent) == digest, "what is there already is not taken again"
    assert stocked.create("sent", files={"sent.gguf": digest}, parameters={"num_predict": 2}).status == "success"
    assert stocked.chat("sent", MESSAGES, options={"temperature": 0}).eval_count == 2
    stocked.delete("sent")
    with pytest.raises(ollama.ResponseError, match="was not uploaded"):
        stocked.create("sent", files={"sent.gguf": f"sha256:{'0' * 64}"})


def test_the_greeting_and_the_version(server: RunningServer) -> None:
    assert CLIENT.get(server.url).text == "Ollama is running"
    assert CLIENT.head(server.url).status_code == 200
    assert server.get("/api/version").json()["version"]
