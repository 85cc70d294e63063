"""`truncation: auto`: a conversation that is too long loses its first turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.api.openai.responses.items import MessageItem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from server.api.openai.responses.items import Known


async def truncated(items: Sequence[Known], fits: Callable[[Sequence[Known]], Awaitable[bool]]) -> Sequence[Known]:
    """The conversation without as many of its first turns as must go.

    A turn is a user's message and all that follows up to the next one, so that no call is parted from its result.
    System prompts at the beginning stay, and so does the last turn, even where it alone does not fit.

    Args:
        items: the conversation.
        fits: tells whether a conversation fits; what is shorter fits as well.
    """
    if await fits(items):
        return items
    head = next((place for place, item in enumerate(items) if not _is_system(item)), len(items))
    turns = [place for place, item in enumerate(items) if isinstance(item, MessageItem) and item.role == "user"]
    shorter = [[*items[:head], *items[place:]] for place in turns if place > head]
    if not shorter:
        return items
    first, last = 0, len(shorter) - 1
    while first < last:
        middle = (first + last) // 2
        if await fits(shorter[middle]):
            last = middle
        else:
            first = middle + 1
    return shorter[first]


def _is_system(item: Known) -> bool:
    return isinstance(item, MessageItem) and item.role in ("system", "developer")
