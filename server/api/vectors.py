"""Embeddings as every protocol wants them: vectors of length one, cut to as many dimensions as asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.models.loading import LoadedModel

Matrix = npt.NDArray[np.float32]

MOST_INPUTS = 2048
"""OpenAI's."""


@dataclass(frozen=True)
class Vectors:
    """One vector an input, as the rows of a matrix, and how many tokens the inputs had in all."""

    rows: Matrix
    tokens: int


async def pooled(model: LoadedModel, inputs: Sequence[str | list[int]], *, truncate: bool = False) -> Vectors:
    """Embed inputs without normalising.

    Raises:
        RequestError: an input is empty or too long (unless `truncate` cuts it), or a token is not in the vocabulary.
    """
    answer = await model.engine.embed(inputs, truncate=truncate)
    return Vectors(np.stack([np.frombuffer(raw, "<f4") for raw in answer.vectors]), sum(answer.token_counts))


async def embed(
    model: LoadedModel, inputs: Sequence[str | list[int]], *, dimensions: int | None = None, truncate: bool = False
) -> Vectors:
    """Embed inputs as unit vectors.

    Args:
        model: loaded to embed.
        inputs: texts, or lists of token ids.
        dimensions: how many numbers to keep of each vector, from its beginning; what is kept has length one again.
        truncate: cut inputs that are too long instead of refusing them.

    Raises:
        RequestError: as `pooled`, or there are fewer dimensions than asked for.
    """
    found = await pooled(model, inputs, truncate=truncate)
    width = found.rows.shape[1]
    if dimensions is not None and dimensions > width:
        raise RequestError(f"the embeddings of {model.name} have {width} dimensions, no more", param="dimensions")
    return Vectors(normalized(found.rows[:, :dimensions]), found.tokens)


def normalized(rows: Matrix, power: float = 2) -> Matrix:
    """Divide each row by its norm: Euclid's, or that of another power. A row of zeros stays as it is."""
    norms: Matrix = np.linalg.norm(rows, power, axis=1, keepdims=True).astype(np.float32)
    norms[norms == 0] = 1
    return rows / norms
