"""Run as a process: computes a model's logits for the first tokens of a text, with plain products up to some width.

python -m tests.engine.logits MODEL OUTPUT.npz OWN|LLAMA [PLAIN_UP_TO:ROWS ...], with brim's own kernels or without; a
process of its own, since llama.cpp's log and its devices are one for all of a process.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from server.engine.llama.context import Context, ContextShape
from server.engine.llama.model import Model
from server.engine.load_spec import LoadSpec

TOKENS = range(3, 15)


def main(path: str, output: str, products: str, *wanted: str) -> None:
    own = products == "OWN"
    spec = LoadSpec(
        path=path, name="random", digest="random", context=64, parallel=1, threads=1, kernels=own, reorder=not own
    )
    context = Context(Model(spec, lambda _: None), spec, ContextShape(64, 1, False, 64, 64))
    context.set_threads(1, 1)
    assert context.can_choose_products
    found: dict[str, Any] = {}
    for each in wanted:
        plain_up_to, rows = map(int, each.split(":"))
        context.set_plain(plain_up_to)
        context.drop(0)
        assert context.decode(TOKENS[:rows], range(rows), [0] * rows, range(rows))
        found[each] = context.logits(rows).copy()
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
