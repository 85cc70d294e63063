"""A model's vocabulary."""

# pyright: basic

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, cast

import llama_cpp.llama_cpp as ll

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPECIAL = ll.LLAMA_TOKEN_ATTR_CONTROL | ll.LLAMA_TOKEN_ATTR_USER_DEFINED


class Vocab:
    """A model's vocabulary: text to token ids and back. Safe to use from several threads."""

    def __init__(self, pointer: ll.llama_vocab_p) -> None:
        self._pointer = pointer
        self.size: int = ll.llama_vocab_n_tokens(pointer)
        self.add_bos = bool(ll.llama_vocab_get_add_bos(pointer))
        self.add_eos = bool(ll.llama_vocab_get_add_eos(pointer))
        self.add_sep = bool(ll.llama_vocab_get_add_sep(pointer))
        self.bos = cast("int", ll.llama_vocab_bos(pointer))
        self.eos = cast("int", ll.llama_vocab_eos(pointer))
        self.eot = cast("int", ll.llama_vocab_eot(pointer))
        self.sep = cast("int", ll.llama_vocab_sep(pointer))
        self.end_tokens = frozenset(t for t in range(self.size) if ll.llama_vocab_is_eog(pointer, t))
        self.special_tokens = {
            self.text(t): t for t in range(self.size) if ll.llama_vocab_get_attr(pointer, t) & _SPECIAL
        }
        """Control and user-defined tokens by their text."""
        self.control_tokens = frozenset(t for t in range(self.size) if ll.llama_vocab_is_control(pointer, t))
        self._pieces: dict[int, bytes] = {}

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text; with `add_special` the tokenizer's own BOS, never twice."""
        data = text.encode("utf-8", "replace")
        capacity = len(data) + 8
        buffer = (ctypes.c_int32 * capacity)()
        n = ll.llama_tokenize(self._pointer, data, len(data), buffer, capacity, add_special, parse_special)
        if n < 0:
            buffer = (ctypes.c_int32 * -n)()
            n = ll.llama_tokenize(self._pointer, data, len(data), buffer, -n, add_special, parse_special)
        tokens = buffer[:n]
        twice = add_special and self.add_bos and n > 1 and tokens[0] == tokens[1] == self.bos
        return tokens[1:] if twice else tokens

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes a token stands for; a control token has none unless `special`."""
        if not special and (known := self._pieces.get(token)) is not None:
            return known
        buffer = ctypes.create_string_buffer(256)
        n = ll.llama_token_to_piece(self._pointer, token, buffer, len(buffer), 0, special)
        if n < 0:
            buffer = ctypes.create_string_buffer(-n)
            n = ll.llama_token_to_piece(self._pointer, token, buffer, len(buffer), 0, special)
        piece = buffer.raw[:n]
        if not special:
            self._pieces[token] = piece
        return piece

    def pieces(self) -> list[bytes]:
        """The bytes that each token of the vocabulary stands for, those of control tokens too."""
        return [self.piece(token, special=token in self.control_tokens) for token in range(self.size)]

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        return b"".join(self.piece(token, special=True) for token in tokens).decode("utf-8", "replace")

    def text(self, token: int) -> str:
        """How the vocabulary spells a token; empty for the null token (-1)."""
        return "" if token < 0 else ll.llama_vocab_get_text(self._pointer, token).decode("utf-8", "replace")

    def fim_tokens(self) -> dict[str, str]:
        """The fill-in-the-middle markers that the vocabulary has."""
        tokens: dict[str, Any] = {
            "prefix": ll.llama_vocab_fim_pre(self._pointer),
            "suffix": ll.llama_vocab_fim_suf(self._pointer),
            "middle": ll.llama_vocab_fim_mid(self._pointer),
            "repository": ll.llama_vocab_fim_rep(self._pointer),
            "file": ll.llama_vocab_fim_sep(self._pointer),
        }
        return {name: self.text(token) for name, token in tokens.items() if token >= 0}
