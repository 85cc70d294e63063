"""A vocabulary for tests of grammars: every byte, some longer pieces, two control tokens and two that end an answer."""

from __future__ import annotations

MERGED = (
    *('{"', '":', '": ', '",', '", "', '"}', "}}", "]}", '"]', "[{", "\n  ", "  ", "true", "false", "null", "12", "00"),
    *("ab", "the", " the", "abc", "é", "世界", "🦊", "0.", "-1", "\\n", '\\"', "e+"),
)
CONTROL = ("<|call|>", "<|done|>")
ENDS = ("<|eos|>", "<|over|>")


class ByteVocabulary:
    """What a constraint needs of a model's vocabulary, without a model.

    Args:
        padding: how many words are added.
        control: its control tokens, besides those that end an answer.
    """

    def __init__(self, padding: int = 0, control: tuple[str, ...] = CONTROL) -> None:
        words = [f" w{i:x}" for i in range(padding)]
        plain = [bytes([i]) for i in range(256)] + [text.encode() for text in (*MERGED, "<tool>", *words)]
        special = [text.encode() for text in (*control, *ENDS)]
        self._pieces = plain + special
        self.size = len(self._pieces)
        self.control_tokens = frozenset(range(len(plain), self.size))
        self.end_tokens = frozenset(range(self.size - len(ENDS), self.size))

    def pieces(self) -> list[bytes]:
        """All tokens' bytes."""
        return self._pieces

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """A token's bytes; a control token has none unless `special`."""
        return b"" if token in self.control_tokens and not special else self._pieces[token]

    def token(self, text: str) -> int:
        """The token that stands for a text."""
        return len(self._pieces) - 1 - self._pieces[::-1].index(text.encode())
