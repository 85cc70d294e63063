"""The items of a request, and those of the kept responses that it goes on from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from server.api.openai.responses.items import MOST_ITEMS, ItemReference, KeptItem, Known, MessageItem
from server.api.openai.responses.output import new_id
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.api.openai.responses.request import InputTokensRequest
    from server.api.openai.responses.store import ResponseStore

_ITEMS: TypeAdapter[list[Known]] = TypeAdapter(list[KeptItem])
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


async def own_items(body: InputTokensRequest, store: ResponseStore, partition: str) -> list[Known]:
    """The items of a request's input, those that it refers to included.

    Raises:
        RequestError: it refers to an item that is not kept (404).
    """
    if isinstance(body.input, str):
        return [MessageItem(role="user", content=body.input)]
    found: list[Known] = []
    for item in body.input or ():
        if isinstance(item, ItemReference):
            found += _ITEMS.validate_python([await asyncio.to_thread(store.item, item.id, partition)])
        else:
            found.append(item)
    return found


async def earlier_items(body: InputTokensRequest, store: ResponseStore, partition: str) -> list[Known]:
    """The items of the conversation that a request goes on from.

    Raises:
        RequestError: it is not kept (404), or too long.
    """
    if body.previous_response_id is None:
        return []
    kept = await asyncio.to_thread(store.conversation, body.previous_response_id, partition)
    if len(kept) > MOST_ITEMS:
        raise RequestError(
            f"the conversation has {len(kept)} items, more than {MOST_ITEMS}; begin a new one",
            param="previous_response_id",
        )
    return _ITEMS.validate_python(kept)


def listed(items: Sequence[Known]) -> list[dict[str, Any]]:
    """Input items as they are kept and listed: each with an id and a status, a message's content in parts."""
    found: list[dict[str, Any]] = []
    for item in items:
        one = item.model_dump(by_alias=True, exclude_none=True)
        one["id"] = item.id or new_id(_PREFIXES[item.type])
        one["status"] = item.status or "completed"
        if isinstance(item, MessageItem) and isinstance(item.content, str):
            kind = "output_text" if item.role == "assistant" else "input_text"
            one["content"] = [{"type": kind, "text": item.content}]
        for part in one.get("content", ()):
            if part["type"] == "output_text":
                part |= {"annotations": [], "logprobs": []}
        found.append(one)
    return found
