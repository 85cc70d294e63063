"""The chat template: tools, tool results, and thinking on or off."""

import json
from itertools import islice

import pytest

from demo import CHECKPOINT
from demo.conversations import training_examples
from demo.example import Message, Tool, assistant, system, user
from demo.template import TEMPLATE, render, training_text
from server.chat.template import ChatTemplate

TOOL: Tool = {
    "type": "function",
    "function": {"name": "get_time", "description": "Get the time", "parameters": {"type": "object", "properties": {}}},
}
CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "get_time", "arguments": {"city": "Oslo"}}}],
}


def test_a_plain_question() -> None:
    assert render([user("Hi!")], generate=True) == "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n"


def test_no_system_message_is_put_in() -> None:
    assert "system" not in render([user("Hi!")])
    assert render([system("Be brief."), user("Hi!")]).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_tools_follow_the_system_message() -> None:
    text = render([system("Be brief."), user("Hi!")], [TOOL])
    listed = text[text.index("<tools>\n") + len("<tools>\n") : text.index("\n</tools>")]
    assert json.loads(listed) == TOOL["function"]
    assert text.index("Be brief.") < text.index("<tools>")
    assert text.count("<|im_start|>system") == 1


def test_tool_calls_and_results() -> None:
    text = render([user("Time?"), CALL, {"role": "tool", "content": '{"hour": 3}'}])
    assert '<tool_call>\n{"name": "get_time", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>' in text
    assert text.endswith('<|im_start|>user\n<tool_response>\n{"hour": 3}\n</tool_response><|im_end|>\n')


def test_results_of_parallel_calls_share_one_turn() -> None:
    result: Message = {"role": "tool", "content": "1"}
    text = render([user("Time?"), CALL, result, result])
    assert text.count("<|im_start|>user") == 2
    assert text.count("<tool_response>") == 2


def test_arguments_may_come_as_json_text() -> None:
    text_call = json.loads(json.dumps(CALL))
    text_call["tool_calls"][0]["function"]["arguments"] = '{"city": "Oslo"}'
    assert render([user("?"), text_call]) == render([user("?"), CALL])


def test_thinking_is_off_unless_asked_for() -> None:
    assert render([user("Hi!")], generate=True).endswith("<|im_start|>assistant\n")
    assert render([user("Hi!")], generate=True, thinking=True).endswith("<|im_start|>assistant\n<think>\n")


def test_thoughts_of_earlier_questions_are_left_out() -> None:
    thought = assistant("Hello!", "They greet me.")
    assert "<think>\nThey greet me.\n</think>\n\nHello!" in render([user("Hi!"), thought])
    assert "greet" not in render([user("Hi!"), thought, user("Bye!")])
    pasted = assistant("<think>\nThey greet me.\n</think>\n\nHello!")
    assert render([user("Hi!"), pasted, user("Bye!")]) == render([user("Hi!"), assistant("Hello!"), user("Bye!")])


@pytest.mark.parametrize("thinking", [False, True])
def test_the_server_renders_what_the_model_was_trained_on(thinking: bool) -> None:
    template = ChatTemplate(TEMPLATE)
    for example in islice(training_examples(5), 400):
        if example.plain:
            continue
        prompt = list(example.messages[:-1])
        rendered = template.render(
            [dict(message) for message in prompt],
            tools=[dict(tool) for tool in example.tools],
            variables={"enable_thinking": thinking},
        )
        assert rendered.text == render(prompt, example.tools, generate=True, thinking=thinking)
        if not thinking:
            assert training_text(example).startswith(rendered.text)


def test_the_checkpoint_carries_this_template() -> None:
    config = json.loads((CHECKPOINT / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["chat_template"] == TEMPLATE
