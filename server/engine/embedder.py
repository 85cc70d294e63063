"""Embeddings: several inputs in one batch, pooled by llama.cpp as the model was trained for, or one for each token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from server.engine.messages import Embeddings

if TYPE_CHECKING:
    from server.engine.llama import Context


class Embedder:
    """Embeds token lists on a context made for it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def embed(self, number: int, inputs: list[list[int]]) -> Embeddings:
        """Embed each input; a vector is the mean over the tokens where the model has no pooling of its own."""
        vectors: list[npt.NDArray[np.float32]] = []
        for group in self._groups(inputs):
            vectors += self._embed_group(group)
        return Embeddings(number, [v.astype("<f4").tobytes() for v in vectors], [len(tokens) for tokens in inputs])

    def _groups(self, inputs: list[list[int]]) -> list[list[list[int]]]:
        """Inputs that fit into one batch together."""
        groups: list[list[list[int]]] = []
        room = 0
        shape = self._context.shape
        for tokens in inputs:
            if len(tokens) > room or len(groups[-1]) == shape.sequences:
                groups.append([])
                room = min(shape.batch, shape.ubatch)
            groups[-1].append(tokens)
            room -= len(tokens)
        return groups

    def _embed_group(self, group: list[list[int]]) -> list[npt.NDArray[np.float32]]:
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        for sequence, part in enumerate(group):
            tokens += part
            positions += range(len(part))
            sequences += [sequence] * len(part)
        self._context.clear()
        self._context.decode(tokens, positions, sequences, range(len(tokens)))
        if self._context.pooling != "none":
            return [self._context.embedding(sequence) for sequence in range(len(group))]
        ends = np.cumsum([len(part) for part in group]).tolist()
        return [
            np.mean([self._context.token_embedding(row) for row in range(end - len(part), end)], axis=0)
            for part, end in zip(group, ends, strict=True)
        ]
