"""Which devices there are, what a model needs on each, and what goes where.

The names below are loaded on first use: the probe, a short-lived process of this package, needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.offload.drafting import draft_placement
    from server.offload.placing import Choice, choose, companions_of, learn
    from server.offload.stepping_down import difference, step_down
    from server.offload.wish import Wish

_HOMES = {
    "Choice": "placing",
    "choose": "placing",
    "companions_of": "placing",
    "difference": "stepping_down",
    "draft_placement": "drafting",
    "Wish": "wish",
    "learn": "placing",
    "step_down": "stepping_down",
}

__all__ = ["Choice", "Wish", "choose", "companions_of", "difference", "draft_placement", "learn", "step_down"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
