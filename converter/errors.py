"""What goes wrong in a conversion, said so that the user can mend it."""

from __future__ import annotations


class ConversionError(Exception):
    """A file or an option that cannot be converted. Its text is one sentence: which file, what is wrong, what to do."""
