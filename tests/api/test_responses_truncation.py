"""Which turns go where a conversation is too long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.openai.responses.items import FunctionCallItem, FunctionOutputItem, Known, MessageItem
from server.api.openai.responses.truncation import truncated

if TYPE_CHECKING:
    from collections.abc import Sequence

SYSTEM = MessageItem(role="developer", content="s")
USER = MessageItem(role="user", content="u")
ANSWER = MessageItem(role="assistant", content="a")
CALL = FunctionCallItem(type="function_call", call_id="c", name="look", arguments="{}")
RESULT = FunctionOutputItem(type="function_call_output", call_id="c", output="r")


async def shortened(items: Sequence[Known], most: int) -> Sequence[Known]:
    async def fits(some: Sequence[Known]) -> bool:
        return len(some) <= most

    return await truncated(items, fits)


@pytest.mark.asyncio
async def test_the_first_turns_go_and_the_system_prompt_stays() -> None:
    talk = [SYSTEM, USER, ANSWER, USER, CALL, RESULT, ANSWER, USER]
    assert await shortened(talk, 8) == talk
    assert await shortened(talk, 7) == [SYSTEM, USER, CALL, RESULT, ANSWER, USER]
    assert await shortened(talk, 5) == [SYSTEM, USER]


@pytest.mark.asyncio
async def test_the_last_turn_stays_even_where_it_does_not_fit() -> None:
    assert await shortened([SYSTEM, USER, ANSWER, USER], 1) == [SYSTEM, USER]
    assert await shortened([USER], 0) == [USER]
    assert await shortened([ANSWER], 0) == [ANSWER]


TURN = st.lists(st.sampled_from([ANSWER, CALL, RESULT]), max_size=3).map(lambda rest: [USER, *rest])


@given(st.lists(TURN, min_size=1, max_size=8), st.integers(0, 40))
@pytest.mark.asyncio
async def test_no_more_goes_than_must(turns: list[list[Known]], most: int) -> None:
    found = await shortened([item for turn in turns for item in turn], most)
    kept = [[item for turn in turns[first:] for item in turn] for first in range(len(turns))]
    assert found == next((one for one in kept if len(one) <= most), kept[-1])
