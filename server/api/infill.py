"""Fill in the middle: a prompt from what comes before a gap and what comes after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.models.loading import LoadedModel

SEPARATOR = "\n\n--- snippet ---\n\n"
"""Before each piece of further context where the vocabulary has no token for it; llama-server's."""


async def infill_prompt(
    model: LoadedModel,
    prefix: str | list[int],
    suffix: str | list[int],
    *,
    extra: Sequence[tuple[str, str]] = (),
    prompt: str | list[int] = "",
    param: str = "suffix",
) -> list[int]:
    """The tokens of a prompt whose continuation fills the gap between two texts.

    Markers spelled out in the texts are text. Source: arXiv 2409.12186 for the form with file names; llama.cpp,
    tools/server/server-common.cpp, format_prompt_infill.

    Args:
        model: one that was trained to fill gaps, which its vocabulary tells.
        prefix, suffix: what is before and after the gap.
        extra: names and contents of further files, for context.
        prompt: what the gap's text begins with.
        param: the request's field to blame where the model cannot do it.

    Raises:
        RequestError: the model has no fill-in-the-middle tokens.
    """
    if not model.info.fim:
        message = f"{model.name} cannot fill gaps: its vocabulary has no fill-in-the-middle tokens"
        raise RequestError(message, code="model_not_supported", param=param)
    marks = {name: model.info.special_tokens[text] for name, text in model.info.fim_tokens.items()}

    async def tokens(text: str | list[int]) -> list[int]:
        return text if isinstance(text, list) else (await model.engine.tokenize(text, parse_special=False)).tokens

    found = [model.info.special_tokens[model.info.bos_token]] if model.info.add_bos else []
    if extra and "repository" in marks:
        found += [marks["repository"], *await tokens("project\n")]
    for name, text in extra:
        head = [marks["file"], *await tokens(f"{name}\n")] if "file" in marks else await tokens(SEPARATOR)
        found += [*head, *await tokens(text)]
    if extra and "file" in marks:
        found += [marks["file"], *await tokens("filename\n")]
    found += [marks["prefix"], *await tokens(prefix), marks["suffix"], *await tokens(suffix)]
    return [*found, marks["middle"], *await tokens(prompt)]
