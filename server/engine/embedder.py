"""Embeddings: several inputs in one batch, pooled by llama.cpp as the model was trained for, or by their mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from server.engine.llama.context import Context
    from server.engine.llama.model import Model

TOGETHER = 512
"""Tokens of several inputs that share a batch: llama.cpp keeps a row of logits for each, as wide as the vocabulary."""

Vector = npt.NDArray[np.float32]


class Embedder:
    """Embeds token lists on a context made for it.

    Attributes:
        longest: tokens that one input may have.
        together: tokens that several inputs in one batch may have.
        sequences: how many inputs fit into one batch.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        shape = context.shape
        causal = context.model.metadata(f"{context.model.architecture}.attention.causal") != "false"
        in_parts = causal and context.has_memory and context.pooling in ("none", "last")
        self.longest = shape.cells if in_parts else min(shape.cells, shape.ubatch)
        self.together = min(shape.batch, shape.ubatch, TOGETHER)
        self.sequences = shape.sequences

    def embed(self, inputs: list[list[int]]) -> list[Vector]:
        """Embed inputs that fit into one batch, or a single one of at most `longest` tokens.

        Returns:
            For each input the pooled vector: the mean over its tokens where the model has no pooling of its own.
            For a model that ranks, its scores.

        Raises:
            RuntimeError: llama.cpp failed in a way that leaves the context unusable.
        """
        self._context.clear()
        if len(inputs) == 1:
            return [self._embed_one(inputs[0])]
        lengths = [len(tokens) for tokens in inputs]
        self._decode(
            [token for tokens in inputs for token in tokens],
            [position for length in lengths for position in range(length)],
            [sequence for sequence, length in enumerate(lengths) for _ in range(length)],
        )
        if self._context.pooling != "none":
            return [self._context.embedding(sequence) for sequence in range(len(inputs))]
        starts = np.cumsum([0, *lengths[:-1]])
        sums = np.add.reduceat(self._context.token_embeddings(sum(lengths)), starts, axis=0)
        return list(sums / np.array(lengths, np.float32)[:, None])

    def _embed_one(self, tokens: list[int]) -> Vector:
        """One input, in parts where it is longer than a batch: each part sees those before it."""
        pooled = self._context.pooling != "none"
        batch = min(self._context.shape.batch, self._context.shape.ubatch)
        total = np.zeros(self._context.model.n_embd_out, np.float32)
        for start in range(0, len(tokens), batch):
            part = tokens[start : start + batch]
            self._decode(part, range(start, start + len(part)), [0] * len(part))
            if not pooled:
                total += self._context.token_embeddings(len(part)).sum(axis=0)
        return self._context.embedding(0) if pooled else total / np.float32(len(tokens))

    def _decode(self, tokens: list[int], positions: list[int] | range, sequences: list[int]) -> None:
        if not self._context.decode(tokens, positions, sequences, range(len(tokens))):
            raise RuntimeError("the KV cells did not suffice for a batch that was made to fit")


def pair(model: Model, query: str, document: str) -> list[int]:
    """The tokens by which a model ranks a document against a query.

    A file may bring its own form as the chat template `rerank`; else the two follow each other, parted and ended as
    the vocabulary says. Source: llama.cpp, tools/server/server-common.cpp, format_prompt_rerank; unlike there, a
    vocabulary that ends texts with a separator ends the document with it too, as BERT's own tokenizer does.
    """
    vocab = model.vocab
    if form := model.rerank_template:
        before, _, after = form.partition("{query}")
        parts = [before.replace("{document}", document), query, after.replace("{document}", document)]
        return vocab.tokenize("".join(parts), add_special=False)
    end = [vocab.eos if vocab.eos >= 0 else vocab.sep] if vocab.add_eos else []
    last = end or ([vocab.sep] if vocab.add_sep else [])
    return [
        *([vocab.bos] if vocab.add_bos else []),
        *vocab.tokenize(query, add_special=False, parse_special=False),
        *end,
        *([vocab.sep] if vocab.add_sep else []),
        *vocab.tokenize(document, add_special=False, parse_special=False),
        *last,
    ]
