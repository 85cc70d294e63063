"""llama_cpp's bindings without its package's own __init__, whose imports would double the time of a short question.

Imported before anything else of llama_cpp, this leaves a bare package in its place.
"""

# pyright: basic, reportOptionalMemberAccess=false

from __future__ import annotations

import importlib.util
import sys
import types

_package = types.ModuleType("llama_cpp")
_package.__path__ = list(importlib.util.find_spec("llama_cpp").submodule_search_locations or ())
sys.modules["llama_cpp"] = _package

from llama_cpp._ggml import libggml  # noqa: E402

__all__ = ["libggml"]
