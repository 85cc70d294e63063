"""A template in a process of its own: the same prompts, and one that hangs, swells or crashes takes nothing along."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any

import psutil
import pytest

from demo.template import TEMPLATE
from server.chat import renderer, template_process
from server.chat.renderer import Renderer
from server.chat.template import ChatTemplate
from server.errors import RequestError
from tests.conftest import ROOT

HELLO = [{"role": "user", "content": "Hello"}]
LOOP = [{"role": "user", "content": "loop"}]
SWELL = [{"role": "user", "content": "swell"}]
CONVERSATION = [{"role": "system", "content": "Be brief."}, *HELLO, {"role": "assistant", "content": "Hi! Ä"}, *HELLO]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "Looks.", "parameters": {"maximum": 10**30}}}]
TROUBLE = """
{%- set n = 100000 if messages[0].content == 'loop' else 1 -%}
{%- for i in range(n) -%}{%- for j in range(n) -%}{%- endfor -%}{%- endfor -%}
{%- if messages[0].content == 'swell' -%}{%- set x = 'a' * (10 ** 11) -%}{%- endif -%}
fine"""

Open = Callable[..., Renderer]


@pytest.fixture
async def opened() -> AsyncGenerator[Open]:
    async with AsyncExitStack() as stack:

        def open_one(*arguments: Any, **named: Any) -> Renderer:
            made = Renderer(*arguments, **named)
            stack.push_async_callback(made.aclose)
            return made

        yield open_one


def process_of(template: Renderer) -> psutil.Process:
    assert template._process._running
    return psutil.Process(template._process._running.pid)


@pytest.mark.parametrize("thinking", [None, True, False])
async def test_prompts_are_those_of_the_template(opened: Open, thinking: bool | None) -> None:
    tokens = {"bos_token": "<s>"}
    arguments: dict[str, Any] = {"tools": TOOLS, "variables": {"big": 10**30}, "thinking": thinking}
    there = await opened(TEMPLATE, tokens).render(CONVERSATION, **arguments)
    assert there == ChatTemplate(TEMPLATE, tokens).render(CONVERSATION, **arguments)
    assert there.boundaries


async def test_variables_are_known_once_it_is_started(opened: Open) -> None:
    template = opened("{{ messages }}{{ verbosity }}")
    await template.start()
    assert template.variables == {"messages", "verbosity"}


async def test_what_a_template_refuses_keeps_its_words(opened: Open) -> None:
    template = opened("{{ '\\n' }}\n{{ raise_exception('no, not this') }}")
    await template.start()
    with pytest.raises(RequestError, match=r"failed at line 2: no, not this") as caught:
        await template.render(HELLO)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "chat_template_error", "messages")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% if %}", "failed at line 1: Expected an expression"),
        ("{{ 'a' * (10 ** 11) }}", "it takes too much memory"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "recursion"),
        ("{{ 'a' | center(70000000) }}", "the prompt is too long"),
        ("{{ '\\ud800' }}", "half a surrogate pair"),
        ("{{ raise_exception('a' * 3000000) }}", r"aaa\.\.\.$"),
    ],
)
async def test_a_template_that_cannot_be_used_says_why(opened: Open, source: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        await opened(source).render(HELLO)


async def test_a_conversation_that_a_template_chokes_on_spoils_no_other(
    opened: Open,
) -> None:
    template = opened(TROUBLE)
    for trouble, reason in ((LOOP, "takes longer than 10 s"), (SWELL, "line 4: it takes too much memory")):
        with pytest.raises(RequestError, match=reason):
            await template.render(trouble)
        assert (await template.render(HELLO)).text == "fine"


async def test_requests_take_turns_and_one_that_is_given_up_leaves_no_trace(opened: Open) -> None:
    template = opened("{{ messages[0].content }}")
    await template.start()
    asked = [
        asyncio.create_task(template.render([{"role": "user", "content": f"number {number}"}])) for number in range(20)
    ]
    await asyncio.sleep(0)
    for task in asked[::3]:
        task.cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for number, answer in enumerate(answers):
        if number % 3 == 0:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert not isinstance(answer, BaseException)
            assert answer.text == f"number {number}"


async def test_a_process_that_dies_is_started_again(opened: Open) -> None:
    template = opened("fine")
    await template.start()
    process = process_of(template)
    process.kill()
    process.wait()
    assert (await template.render(HELLO)).text == "fine"


async def test_nothing_is_rendered_for_a_model_that_was_unloaded(opened: Open) -> None:
    template = opened("fine")
    await template.start()
    await template.aclose()
    with pytest.raises(RequestError, match="unloaded meanwhile") as caught:
        await template.render(HELLO)
    assert caught.value.status == 503


async def test_who_leaves_costs_the_next_one_no_process(opened: Open) -> None:
    template = opened("{{ messages[0].content }}")
    await template.start()
    process = process_of(template)
    for number in range(20):
        task = asyncio.create_task(template.render([{"role": "user", "content": f"number {number}"}]))
        await asyncio.sleep(0.0005 * (number % 4))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await template.render(HELLO)).text == HELLO[0]["content"]
    assert process_of(template) == process


async def test_one_that_is_given_up_while_it_computes_ends_with_its_process(opened: Open) -> None:
    template = opened(TROUBLE)
    await template.start()
    process = process_of(template)
    task = asyncio.create_task(template.render(LOOP))
    await asyncio.sleep(0.2)
    waiting = asyncio.create_task(template.render(HELLO))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await waiting).text == "fine"
    assert not process.is_running()


async def test_no_process_outlives_what_is_closed_while_it_starts(opened: Open) -> None:
    before = set(psutil.Process().children(recursive=True))
    template = opened("fine")
    starting = asyncio.create_task(template.start())
    await asyncio.sleep(0.001)
    await template.aclose()
    await starting
    template._thread.shutdown()
    assert set(psutil.Process().children(recursive=True)) == before


async def test_a_template_that_cannot_be_loaded_is_not_tried_again_at_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = opened(TROUBLE.replace("messages[0].content == 'loop'", "true"))
    for _ in range(2):
        with pytest.raises(RequestError, match="takes longer than 10 s"):
            await template.render(HELLO)
        assert template._process._running is None
        monkeypatch.setattr(template_process, "_spawn", lambda: pytest.fail("it was started again"))


async def test_a_machine_that_is_too_slow_ends_it_too(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    template = opened(TROUBLE)
    await template.start()
    monkeypatch.setattr(renderer, "LONGEST_ANSWER", 0.5)
    with pytest.raises(RequestError, match=r"takes longer than 0\.5 s"):
        await template.render(LOOP)
    monkeypatch.undo()
    assert (await template.render(HELLO)).text == "fine"


async def test_who_waits_too_long_is_told_to_come_back(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer, "LONGEST_WAIT", 0.2)
    template = opened(TROUBLE)
    await template.start()
    task = asyncio.create_task(template.render(LOOP))
    await asyncio.sleep(0.05)
    with pytest.raises(RequestError, match="busy") as caught:
        await template.render(HELLO)
    assert (caught.value.status, caught.value.retry_after) == (503, 1.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


HANGING_SERVER = """
import asyncio
from tests.chat.test_renderer import LOOP, TROUBLE, Renderer

async def main():
    template = Renderer(TROUBLE)
    await template.start()
    print(template._process._running.pid, flush=True)
    await template.render(LOOP)

asyncio.run(main())
"""


def test_a_process_that_hangs_ends_without_its_server() -> None:
    command = [sys.executable, "-c", HANGING_SERVER]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        process = psutil.Process(int(server.stdout.readline()))
        server.kill()
    process.wait(60)
