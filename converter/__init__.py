"""Turns Hugging Face checkpoints into GGUF files, quantizes them, and reads what GGUF files say of themselves.

from converter import convert
convert("path/to/checkpoint", "model.gguf", "Q4_K_M")
"""

from __future__ import annotations

from converter.convert import Summary, convert, quantize
from converter.errors import ConversionError
from converter.gguf_info import GGUFInfo, read_gguf_info
from converter.quantization import Quantization

__all__ = ["ConversionError", "GGUFInfo", "Quantization", "Summary", "convert", "quantize", "read_gguf_info"]
