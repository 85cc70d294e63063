"""OpenAI's own Python client against a real server with the demo model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam

MODEL = "demo"
MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]


def test_chat_answers(openai_client: OpenAI) -> None:
    answer = openai_client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage
    assert 0 < answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_chat_is_the_same_as_one_not_streamed(openai_client: OpenAI) -> None:
    whole = openai_client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=12, temperature=0)
    chunks = list(
        openai_client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
            temperature=0,
        )
    )
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    *answering, last = chunks
    assert answering[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in answering) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in answering if chunk.choices[0].finish_reason] == [
        whole.choices[0].finish_reason
    ]
    assert all(chunk.usage is None for chunk in answering)
    assert last.choices == []
    assert last.usage
    assert whole.usage
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_a_streamed_completion_is_the_same_as_one_not_streamed(openai_client: OpenAI) -> None:
    whole = openai_client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=12, temperature=0)
    chunks = openai_client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=12, stream=True, temperature=0
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert whole.object == "text_completion"
    assert whole.usage
    assert whole.usage.completion_tokens <= 12


def test_requests_side_by_side_get_their_own_answers(openai_client: OpenAI) -> None:
    prompts = [f"The number {number} is" for number in range(8)]

    def complete(prompt: str) -> str:
        answer = openai_client.completions.create(model=MODEL, prompt=prompt, max_tokens=6, echo=True, temperature=0)
        return answer.choices[0].text

    with ThreadPoolExecutor(len(prompts)) as pool:
        answers = list(pool.map(complete, prompts))
    assert all(answer.startswith(prompt) for answer, prompt in zip(answers, prompts, strict=True))


def test_several_prompts_and_choices_come_back_in_order(openai_client: OpenAI) -> None:
    prompts = ["Once upon", "A cat"]
    answer = openai_client.completions.create(
        model=MODEL, prompt=prompts, n=2, max_tokens=3, echo=True, temperature=1, seed=7
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    for choice in answer.choices:
        assert choice.text.startswith(prompts[choice.index // 2])
    streamed = ["", "", "", ""]
    for chunk in openai_client.completions.create(
        model=MODEL, prompt=prompts, n=2, max_tokens=3, echo=True, temperature=1, seed=7, stream=True
    ):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [choice.text for choice in answer.choices]


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(openai_client: OpenAI) -> None:
    free = openai_client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=16, temperature=0)
    text = free.choices[0].text
    stop = text[5:8]
    cut = text[: text.index(stop)]
    stopped = openai_client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=16, stop=[stop, "never said"], temperature=0
    )
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == (cut, "stop")
    chunks = openai_client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=16, stop=stop, stream=True, temperature=0
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == cut


def test_ignoring_the_end_gives_as_many_tokens_as_asked_for(openai_client: OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_completion_tokens=40, extra_body={"ignore_eos": True}, temperature=0
    )
    assert answer.usage
    assert answer.usage.completion_tokens == 40
    assert answer.choices[0].finish_reason == "length"


def test_the_same_seed_gives_the_same_answer(openai_client: OpenAI) -> None:
    def draw(seed: int) -> str:
        answer = openai_client.completions.create(
            model=MODEL, prompt="Once", max_tokens=12, temperature=1.5, seed=seed, extra_body={"ignore_eos": True}
        )
        return answer.choices[0].text

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in (1, 2, 3)}) > 1


def test_log_probabilities_come_for_each_token(openai_client: OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=5, logprobs=True, top_logprobs=3, temperature=0
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    content = answer.choices[0].message.content or ""
    spelled = b"".join(bytes(token.bytes or []) for token in logprobs.content)
    assert spelled.decode(errors="replace").startswith(content)
    for token in logprobs.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob, abs=1e-4)  # greedy takes the likeliest


def test_echo_gives_the_prompts_log_probabilities_too(openai_client: OpenAI) -> None:
    prompt = "Once upon a time"
    answer = openai_client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=3, echo=True, logprobs=1, extra_body={"ignore_eos": True}, temperature=0
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs
    assert logprobs.tokens
    assert logprobs.token_logprobs
    assert logprobs.text_offset
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert logprobs.token_logprobs[0] is None  # nothing comes before the first token
    assert all(logprob is not None and logprob <= 0 for logprob in logprobs.token_logprobs[1:])
    assert logprobs.text_offset[0] == 0
    assert logprobs.text_offset == sorted(logprobs.text_offset)


def test_a_bias_bans_a_token(openai_client: OpenAI, server_url: str) -> None:
    def first(bias: dict[str, int]) -> Any:
        answer = openai_client.completions.create(
            model=MODEL, prompt="Once upon a", max_tokens=1, logprobs=1, logit_bias=bias, temperature=0
        )
        return answer.choices[0].text

    unbiased = first({})
    banned = {str(token): -100 for token in range(2048) if token % 2}
    allowed = {str(token): -100 for token in range(2048) if not token % 2}
    assert unbiased in (first(banned), first(allowed))
    assert first(banned) != first(allowed)


def test_a_prefix_computed_before_is_counted_as_cached(openai_client: OpenAI) -> None:
    prompt = "A story about a very long train that went over nine hills and through nine valleys, " * 2
    answers = [
        openai_client.completions.create(
            model=MODEL, prompt=prompt, max_tokens=1, extra_body={"cache_salt": "counted"}, temperature=0
        )
        for _ in range(2)
    ]
    answer = answers[1]
    assert answer.usage
    details = answer.usage.prompt_tokens_details
    assert details
    assert (details.cached_tokens or 0) > answer.usage.prompt_tokens // 2
    other = openai_client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=1, extra_body={"cache_salt": "another"}, temperature=0
    )
    assert other.usage
    assert other.usage.prompt_tokens_details
    assert other.usage.prompt_tokens_details.cached_tokens == 0


def test_timings_come_on_request_under_llama_servers_names(openai_client: OpenAI) -> None:
    answer = openai_client.completions.create(
        model=MODEL, prompt="Once", max_tokens=4, extra_body={"timings": True, "ignore_eos": True}, temperature=0
    )
    timings: dict[str, float] = answer.model_extra["timings"]  # type: ignore[index]
    assert timings["predicted_n"] == 4
    assert timings["prompt_n"] + timings["cache_n"] == answer.usage.prompt_tokens  # type: ignore[union-attr]
    assert timings["predicted_per_second"] > 0


def test_the_models_are_listed(openai_client: OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == [MODEL]
    assert openai_client.models.retrieve(MODEL).id == MODEL


def test_an_unknown_model_is_not_found(openai_client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        openai_client.chat.completions.create(model="absent", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        openai_client.models.retrieve("absent")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(openai_client: OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="512") as caught:
        openai_client.completions.create(model=MODEL, prompt="word " * 2000, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    body: Any = caught.value.body
    assert body["n_ctx"] == 512
    assert body["n_prompt_tokens"] > 2000


def test_a_field_at_fault_is_named(openai_client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature="hot")  # type: ignore[call-overload]
    assert caught.value.param == "temperature"


def test_text_parts_are_one_text(openai_client: OpenAI) -> None:
    parts: list[ChatCompletionMessageParam] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": " of France?"}],
        }
    ]
    answers = [
        openai_client.chat.completions.create(model=MODEL, messages=messages, max_tokens=6, temperature=0)
        for messages in (MESSAGES, parts)
    ]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    assert answers[0].usage
    assert answers[1].usage
    assert answers[0].usage.prompt_tokens == answers[1].usage.prompt_tokens
