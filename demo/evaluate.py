"""Scoring a served demo model on held-out questions at temperature 0, over the OpenAI API (`demo.evaluate`)."""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from demo.conversations import answers_in_json, arithmetic, facts, instructions, memory, tools
from demo.example import Example, Message, Tool, ToolCall, assistant

Draw = Callable[[Random], Example]

# The categories of the table, the share each should reach, and the kinds of conversation it draws from in turn.
CATEGORIES: dict[str, tuple[float, tuple[Draw, ...]]] = {
    "facts": (0.95, (facts.fact, facts.fact, facts.fact, facts.about_brim)),
    "arithmetic": (0.95, (arithmetic.single, arithmetic.single, arithmetic.word_problem)),
    "tool calls": (0.95, (tools.call, tools.call, tools.two_calls, tools.no_call)),
    "tool answers": (0.95, (tools.call_and_answer,)),
    "json": (0.95, (answers_in_json.fact, answers_in_json.arithmetic, answers_in_json.record, answers_in_json.array)),
    "multi-turn": (
        0.90,
        (memory.recall, memory.told_together, memory.follow_up, memory.first_question, arithmetic.running_total),
    ),
    "system prompt": (
        0.90,
        (instructions.capitals, instructions.one_word,  instructions.sign_off,
         instructions.persona, instructions.knows_user, instructions.pirate),
    ),
}  # fmt: skip
STOPS = "stops by itself"
STOPS_TARGET = 0.99
MAX_TOKENS = 160
CONCURRENT = 8


@dataclass(frozen=True)
class Case:
    """One held-out conversation and what its last answer should be.

    Attributes:
        category: The row of the table it counts for.
        messages: What precedes the answer.
        expected: The right answer.
        tools: The tools on offer.
    """

    category: str
    messages: tuple[Message, ...]
    expected: Message
    tools: tuple[Tool, ...]


@dataclass(frozen=True)
class Reply:
    """What the model answered, and whether it ended the answer itself."""

    content: str
    tool_calls: tuple[ToolCall, ...]
    stopped: bool


@dataclass(frozen=True)
class Outcome:
    """A case with the reply to it."""

    case: Case
    reply: Reply
    right: bool


Ask = Callable[[Sequence[Message], Sequence[Tool]], Awaitable[Reply]]


def cases(count: int, seed: int, categories: Sequence[str] = tuple(CATEGORIES)) -> list[Case]:
    """Return `count` different held-out cases of each category."""
    found: list[Case] = []
    for category in categories:
        _, kinds = CATEGORIES[category]
        rng = Random(f"{seed} {category}")
        seen: set[str] = set()
        tries = 0
        while len(seen) < count and tries < 100_000:
            example = kinds[tries % len(kinds)](rng)
            tries += 1
            case = _case(category, example)
            key = json.dumps([case.messages, case.tools])
            if example.held_out and key not in seen:
                seen.add(key)
                found.append(case)
    return found


def _case(category: str, example: Example) -> Case:
    messages = example.messages
    last = len(messages) - 1
    if category == "tool calls":
        last = next(at for at, message in enumerate(messages) if message["role"] == "assistant")
    return Case(category, messages[:last], messages[last], example.tools)


async def answer(case: Case, ask: Ask) -> Outcome:
    """Put a case to the model, with its own replies in place of the earlier answers, and judge the last one.

    Tool results belong to the calls they answer, so conversations with tools keep the earlier answers as written.
    """
    history: list[Message] = []
    stopped = True
    for message in case.messages:
        if message["role"] == "assistant" and not case.tools:
            reply = await ask(history, ())
            stopped = stopped and reply.stopped
            history.append(assistant(reply.content))
        else:
            history.append(message)
    reply = await ask(history, case.tools)
    return Outcome(case, Reply(reply.content, reply.tool_calls, stopped and reply.stopped), is_right(case, reply))


def is_right(case: Case, reply: Reply) -> bool:
    """Tell whether the reply is the expected one: the same calls, the same JSON value, or the same text."""
    expected_calls = case.expected.get("tool_calls", [])
    if expected_calls or reply.tool_calls:
        return [call["function"] for call in expected_calls] == [call["function"] for call in reply.tool_calls]
    if case.category == "json":
        try:
            return json.loads(reply.content) == json.loads(case.expected["content"])
        except ValueError:
            return False
    return reply.content.strip() == case.expected["content"]


def openai_ask(url: str, model: str, key: str) -> Ask:
    """Return a function that asks an OpenAI-compatible server; the `openai` package is needed."""
    from openai import AsyncOpenAI

    create: Any = AsyncOpenAI(base_url=url, api_key=key).chat.completions.create

    async def ask(messages: Sequence[Message], offered: Sequence[Tool]) -> Reply:
        request: dict[str, Any] = {"model": model, "messages": [*map(_encoded, messages)], "temperature": 0}
        if offered:
            request["tools"] = list(offered)
        completion: Any = await create(max_tokens=MAX_TOKENS, **request)
        choice: Any = completion.choices[0]
        calls: list[Any] = [call.function for call in choice.message.tool_calls or ()]
        return Reply(
            choice.message.content or "",
            tuple(_decoded(call.name, call.arguments) for call in calls),
            choice.finish_reason in ("stop", "tool_calls"),
        )

    return ask


def _encoded(message: Message) -> dict[str, Any]:
    """Return a message as the OpenAI API takes it, with ids and arguments as JSON text."""
    encoded: dict[str, Any] = {**message}
    if calls := message.get("tool_calls"):
        encoded["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": call["function"]["name"], "arguments": json.dumps(call["function"]["arguments"])},
            }
            for number, call in enumerate(calls)
        ]
    if message["role"] == "tool":
        encoded["tool_call_id"] = "call_0"
    return encoded


def _decoded(name: str, arguments: str) -> ToolCall:
    values: dict[str, object]
    try:
        values = json.loads(arguments)
    except ValueError:
        values = {"not JSON": arguments}
    return {"type": "function", "function": {"name": name, "arguments": values}}


async def run(chosen: Sequence[Case], ask: Ask) -> list[Outcome]:
    """Answer all cases, some at a time, with a progress bar."""
    gate = asyncio.Semaphore(CONCURRENT)

    async def guarded(case: Case) -> Outcome:
        async with gate:
            return await answer(case, ask)

    tasks = [asyncio.create_task(guarded(case)) for case in chosen]
    return [await task for task in track(tasks, description="asking")]


def scores(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """Return the share of right answers by category, and the share of answers that ended by themselves."""
    by_category: dict[str, list[bool]] = {}
    for outcome in outcomes:
        by_category.setdefault(outcome.case.category, []).append(outcome.right)
        by_category.setdefault(STOPS, []).append(outcome.reply.stopped)
    return {category: sum(right) / len(right) for category, right in by_category.items()}


def table(reached: dict[str, float], title: str) -> Table:
    """Return the scores beside their targets."""
    drawn = Table("category", "right", "target", title=title)
    for category, share in reached.items():
        target = STOPS_TARGET if category == STOPS else CATEGORIES[category][0]
        colour = "green" if share >= target else "red"
        drawn.add_row(category, f"[{colour}]{share:.1%}[/]", f"{target:.0%}")
    return drawn


def main() -> None:
    """Ask a server and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080/v1")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--key", default="none")
    parser.add_argument("--count", type=int, default=120, help="cases per category")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--category", action="append", choices=CATEGORIES, help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, help="write scores and failures here")
    arguments = parser.parse_args()
    chosen = cases(arguments.count, arguments.seed, arguments.category or tuple(CATEGORIES))
    outcomes = asyncio.run(run(chosen, openai_ask(arguments.url, arguments.model, arguments.key)))
    reached = scores(outcomes)
    Console().print(table(reached, f"{arguments.model}: {len(chosen)} held-out cases"))
    if arguments.json:
        failures = [asdict(outcome) for outcome in outcomes if not outcome.right]
        arguments.json.write_text(json.dumps({"scores": reached, "failures": failures}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
