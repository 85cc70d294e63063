"""How many tokens a conversation has once it is rendered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.chat.answer import Prepared
    from server.models.loading import LoadedModel


async def prompt_tokens(model: LoadedModel, prepared: Prepared) -> int:
    """The tokens of a prepared task's prompt, its tools included."""
    generate = prepared.generate
    assert isinstance(generate.prompt, str)
    found = await model.engine.tokenize(
        generate.prompt, media=generate.media, add_special=generate.add_special, parse_special=generate.parse_special
    )
    return len(found.tokens)
