"""Training batches: conversations packed into rows, each attending to itself alone."""

# pyright: basic, reportMissingImports=false
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from demo.conversations import training_examples
from demo.template import training_text

STEP_TOKENS = 2048
ROW_LENGTHS = (256, 512, STEP_TOKENS)  # attention costs the square of a row, so most conversations go into short ones
CHUNK_EXAMPLES = 4000
PROMPT_WEIGHT = 0.16  # what the user says is learned too, but matters less than the answer:
PROMPT_EVERY = 8  # only every so many of its tokens count, so that the rest need no logits
DIGIT_WEIGHT = 3.0  # in an answer a digit is the result of a sum or copied exactly, so it must not be lost among words


@dataclass(frozen=True)
class Document:
    """One training text as token ids, and how much each of them counts in the loss."""

    tokens: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Batch:
    """Rows of packed documents.

    Attributes:
        tokens: Ids, [rows, time + 1]; the model reads all but the last and predicts all but the first.
        weights: Loss weights of the predicted tokens, [rows, time]; zero for padding, across documents
            and for most of a prompt.
        positions: Position of each token within its document, [rows, time].
        lengths: How many tokens each document of each row has; a row's padding is its last document.
    """

    tokens: Tensor
    weights: Tensor
    positions: Tensor
    lengths: list[list[int]]

    @property
    def learned(self) -> Tensor:
        """Which predicted tokens count in the loss, booleans, [rows, time]."""
        return self.weights != 0

    @property
    def joined(self) -> list[int]:
        """The lengths of the documents of all rows, one after the other."""
        return [length for row in self.lengths for length in row]

    def rows(self, chosen: slice, place: torch.device) -> "Batch":
        """Return the batch of some of the rows, on the device `place`."""
        tensors = (each[chosen].to(place) for each in (self.tokens, self.weights, self.positions))
        return Batch(*tensors, lengths=self.lengths[chosen])


def chunk(seed: int, index: int, tokenizer: Tokenizer, focus: Mapping[str, float]) -> Iterator[Batch]:
    """Yield the batches of chunk `index`, the same ones for the same seed; a batch has `STEP_TOKENS`, or twice that."""
    # Chunks draw from streams of their own, so that a resumed run need not replay the earlier ones.
    examples = islice(training_examples(seed * 1_000_003 + index, focus), CHUNK_EXAMPLES)
    texts = [(training_text(example), example.plain) for example in examples]
    encodings = tokenizer.encode_batch([text for text, _ in texts], add_special_tokens=False)
    marks = Marks.of(tokenizer)
    documents = [document(each.ids, plain, marks) for each, (_, plain) in zip(encodings, texts, strict=True)]
    groups: list[tuple[list[list[Document]], int]] = []
    shorter = 0
    for length in ROW_LENGTHS:
        rows = pack([each for each in documents if shorter < len(each.tokens) <= length], length)
        per_batch = max(2, STEP_TOKENS // length)
        groups += [(rows[at : at + per_batch], length) for at in range(0, len(rows) - per_batch + 1, per_batch)]
        shorter = length
    Random(index).shuffle(groups)
    for group, length in groups:
        yield batch(group, length)


@dataclass(frozen=True)
class Marks:
    """The ids of the tokens that tell what in a document is to be learned."""

    start: int
    end: int
    role: int
    equals: int
    stop: int
    think: int
    digits: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Marks":
        """Look the tokens up."""
        ids = tokenizer.get_vocab()
        single = (ids[text] for text in ("<|im_start|>", "<|im_end|>", "assistant", "Ġ=", ".", "<think>"))
        return cls(*single, digits=frozenset(ids[digit] for digit in "0123456789"))


def document(tokens: list[int], plain: bool, marks: Marks) -> Document:
    """Return at most `STEP_TOKENS` tokens, with full weight on what the assistant writes and on results in a drill."""
    drill = plain and marks.equals in tokens
    phase = len(tokens) % PROMPT_EVERY  # so that it is not the same place of the template in all documents
    answering = plain and not drill
    weights: list[float] = []
    for at, token in enumerate(tokens[:STEP_TOKENS]):
        prompt_weight = PROMPT_WEIGHT if at % PROMPT_EVERY == phase else 0.0
        weights.append((DIGIT_WEIGHT if token in marks.digits else 1.0) if answering else prompt_weight)
        opens_answer = at >= 2 and tokens[at - 2] == marks.start and tokens[at - 1] == marks.role
        if token == marks.think:
            weights[-1] = prompt_weight  # whether to think is the prompt's choice, not the model's
        if token == marks.end or (drill and token == marks.stop):
            answering = False
        elif opens_answer or (drill and token == marks.equals):
            answering = True
    return Document(tokens[:STEP_TOKENS], weights)


def pack(documents: list[Document], length: int) -> list[list[Document]]:
    """Put documents into rows of at most `length` tokens, each into the fullest of the open rows that has room."""
    rows: list[list[Document]] = []
    room: list[int] = []
    first_open = 0
    for each in documents:
        size = len(each.tokens)
        fitting = [at for at in range(first_open, len(rows)) if room[at] >= size]
        if fitting:
            best = min(fitting, key=room.__getitem__)
        else:
            best = len(rows)
            rows.append([])
            room.append(length)
        rows[best].append(each)
        room[best] -= size
        first_open = max(first_open, len(rows) - 32)
    return rows


def batch(rows: list[list[Document]], length: int) -> Batch:
    """Lay rows of documents out as tensors of `length` columns."""
    tokens = torch.zeros(len(rows), length + 1, dtype=torch.long)
    weights = torch.zeros(len(rows), length + 1)
    positions = torch.zeros(len(rows), length, dtype=torch.long)
    lengths = [[len(each.tokens) for each in documents] for documents in rows]
    for row, documents in enumerate(rows):
        at = 0
        for each in documents:
            span = slice(at, at + len(each.tokens))
            tokens[row, span] = torch.tensor(each.tokens)
            weights[row, span] = torch.tensor(each.weights)
            weights[row, at] = 0.0
            positions[row, span] = torch.arange(len(each.tokens))
            at = span.stop
        if at < length:
            lengths[row].append(length - at)
    return Batch(tokens, weights[:, 1:], positions, lengths)
