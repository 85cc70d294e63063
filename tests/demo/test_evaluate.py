"""The scoring of the demo model's answers, with answers made up here."""

import asyncio
import json
from collections.abc import Sequence

from demo.evaluate import STOPS, Case, Reply, answer, cases, is_right, run, scores
from demo.example import Message, Tool, ToolCall, assistant, user


def reply(content: str = "", *calls: ToolCall, stopped: bool = True) -> Reply:
    return Reply(content, calls, stopped)


def call(name: str, **arguments: object) -> ToolCall:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def case(category: str, expected: Message) -> Case:
    return Case(category, (user("?"),), expected, ())


def test_text_must_be_the_same() -> None:
    wanted = case("facts", assistant("The capital of France is Paris."))
    assert is_right(wanted, reply("The capital of France is Paris.\n"))
    assert not is_right(wanted, reply("The capital of France is Rome."))


def test_json_may_be_spaced_as_it_likes() -> None:
    wanted = case("json", assistant('{"sum": "1 + 1", "result": 2}'))
    assert is_right(wanted, reply('{"result":2,"sum":"1 + 1"}'))
    assert not is_right(wanted, reply('{"sum": "1 + 1", "result": 3}'))
    assert not is_right(wanted, reply("2"))


def test_tool_calls_must_have_the_name_and_the_arguments() -> None:
    expected: Message = {"role": "assistant", "content": "", "tool_calls": [call("get_time", city="Oslo")]}
    wanted = case("tool calls", expected)
    assert is_right(wanted, reply("", call("get_time", city="Oslo")))
    assert not is_right(wanted, reply("", call("get_time", city="Rome")))
    assert not is_right(wanted, reply("", call("get_time", town="Oslo")))
    assert not is_right(wanted, reply("Oslo"))


def test_a_call_nobody_asked_for_is_wrong() -> None:
    assert not is_right(case("tool calls", assistant("Hello!")), reply("Hello!", call("get_time", city="Oslo")))


def test_several_turns_are_played_with_the_models_own_answers() -> None:
    seen: list[list[str]] = []

    async def ask(messages: Sequence[Message], tools: Sequence[Tool]) -> Reply:
        seen.append([message["content"] for message in messages])
        return reply("own", stopped=len(messages) > 1)

    played = Case("multi-turn", (user("a"), assistant("gold"), user("b")), assistant("own"), ())
    outcome = asyncio.run(answer(played, ask))
    assert seen == [["a"], ["a", "own", "b"]]
    assert outcome.right
    assert not outcome.reply.stopped


def test_a_model_that_knows_everything_scores_full_marks() -> None:
    chosen = cases(5, seed=2)
    known = {json.dumps([c.messages, c.tools]): c.expected for c in chosen}

    async def ask(messages: Sequence[Message], tools: Sequence[Tool]) -> Reply:
        for c in chosen:  # an earlier turn of a longer case is answered as written
            turns = (*c.messages, c.expected)
            if list(turns[: len(messages)]) == list(messages) and c.tools == tuple(tools):
                wanted = turns[len(messages)]
                return Reply(wanted["content"], tuple(wanted.get("tool_calls", ())), True)
        raise AssertionError(known)

    reached = scores(asyncio.run(run(chosen, ask)))
    assert set(reached.values()) == {1.0}
    assert STOPS in reached
