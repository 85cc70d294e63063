from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.formats import named
from server.chat.template import ChatTemplate
from server.errors import RequestError

HELLO = [{"role": "user", "content": "Hello"}]


def render(source: str, messages: list[dict[str, Any]] | None = None, **variables: Any) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}).render(messages or HELLO, variables=variables).text


def test_chatml_is_used_where_the_model_has_no_template() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert ChatTemplate(None).render(messages).text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_blocks_leave_no_blank_lines_as_in_transformers() -> None:
    assert (
        render("{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\n") == "Hello\n"
    )


def test_special_tokens_and_variables_reach_the_template() -> None:
    assert render("{{ bos_token }}{{ enable_thinking }}", enable_thinking=False) == "<s>False"


def test_tools_are_none_where_there_are_none() -> None:
    assert render("{{ tools is none }}") == "True"


def test_tojson_escapes_neither_html_nor_other_scripts_and_keeps_the_order() -> None:
    assert render("{{ {'b': '<&>é', 'a': 1} | tojson }}") == '{"b": "<&>é", "a": 1}'
    assert render("{{ {'a': [1]} | tojson(indent=2) }}") == '{\n  "a": [\n    1\n  ]\n}'


def test_loop_controls_the_generation_tag_and_strftime_now_are_there() -> None:
    assert render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"
    assert render("{% generation %}{{ messages[0].content }}{% endgeneration %}") == "Hello"
    assert render("{{ strftime_now('%Y') }}") == str(datetime.now().year)


def test_a_template_that_refuses_is_a_400_with_its_words_and_line() -> None:
    with pytest.raises(RequestError, match="line 2: roles must alternate") as caught:
        render("{{ bos_token }}\n{{ raise_exception('roles must alternate') }}")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("source", "line"),
    [("a\n{% if %}", 2), ("\n\n{{ messages[9].content }}", 3), ("{{ 1 + 'a' }}", 1), ("\n{{ nothing.at.all }}", 2)],
)
def test_a_template_that_fails_is_a_400_that_names_the_line(source: str, line: int) -> None:
    with pytest.raises(RequestError, match=f"template failed at line {line}: ") as caught:
        render(source)
    assert (caught.value.status, caught.value.code) == (400, "chat_template_error")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% for i in range(10000000) %}{% endfor %}",
    ],
)
def test_a_template_cannot_reach_out_of_its_sandbox(source: str) -> None:
    with pytest.raises(RequestError):
        render(source)


def test_messages_are_left_as_they_were() -> None:
    messages = [{"role": "user", "content": "x"}]
    render("{{ messages | length }}", messages)
    assert messages == [{"role": "user", "content": "x"}]


text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
roles = st.sampled_from(["user", "assistant"])
conversations = st.lists(st.fixed_dictionaries({"role": roles, "content": text}), min_size=1, max_size=6)


@given(conversations, st.booleans())
def test_boundaries_lie_where_messages_end(messages: list[dict[str, Any]], with_system: bool) -> None:
    if with_system:
        messages = [{"role": "system", "content": "S"}, *messages]
    prompt = ChatTemplate(None).render(messages)
    begun = messages[-1]["content"] if len(messages) > 1 and messages[-1]["role"] == "assistant" else ""
    assert len(prompt.text) - len("<|im_start|>assistant\n" + begun) in prompt.boundaries
    assert prompt.boundaries == sorted(set(prompt.boundaries))
    for boundary in prompt.boundaries:
        assert prompt.text[:boundary].endswith("<|im_end|>\n")


def test_a_boundary_that_the_next_turn_would_not_keep_is_left_out() -> None:
    # The last message is written in another way once there is one behind it.
    source = "{% for m in messages %}{% if loop.last %}<last>{% endif %}{{ m.content }};{% endfor %}"
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    prompt = ChatTemplate(source).render(messages)
    assert prompt.text == "a;<last>b;"
    assert prompt.boundaries == [len(prompt.text)]


def test_an_answer_that_is_begun_goes_on() -> None:
    messages = [*HELLO, {"role": "assistant", "content": "Good mor"}]
    assert ChatTemplate(None).render(messages).text.endswith("<|im_start|>assistant\nGood mor")


def test_an_answer_that_is_begun_is_not_taken_for_reasoning() -> None:
    template = ChatTemplate("{{ messages | length }}{% if add_generation_prompt %}<think>\n{% endif %}")
    assert template.render([*HELLO, {"role": "assistant", "content": "Yes"}]).text == "1<think>\n</think>\n\nYes"
    begun = "Hm.</think>Yes"
    assert template.render([*HELLO, {"role": "assistant", "content": begun}]).text == "1<think>\nHm.</think>Yes"


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_reasoning_is_switched_by_the_variable_that_the_template_has(name: str) -> None:
    template = ChatTemplate("{{ NAME is defined and NAME }} {{ other is defined }}".replace("NAME", name))
    assert template.switches == {name}
    assert template.render(HELLO, thinking=True).text == "True False"
    assert template.render(HELLO, thinking=False).text == "False False"
    assert template.render(HELLO, thinking=True, variables={name: False}).text == "False False"
    assert template.render(HELLO).text == "False False"


def test_the_variables_of_a_template_are_known() -> None:
    source = "{% set a = a | default('x') %}{% for m in messages %}{{ m.content }}{{ b }}{% endfor %}"
    assert ChatTemplate(source).variables == {"messages", "a", "b"}


def test_a_chosen_format_takes_the_templates_own_tools_on_trust() -> None:
    source = "{{ tools | tojson if tools else '' }}{% for m in messages %}{{ m.content }}{% endfor %}"
    tools: list[dict[str, Any]] = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    assert ChatTemplate(source).render(HELLO, tools=tools).text.startswith("# Tools")
    assert ChatTemplate(source, chat_format=named("mistral")).render(HELLO, tools=tools).text.startswith('[{"type"')
