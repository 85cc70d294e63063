"""Run as a process: computes a model's logits for the first tokens of a text, with brim's kernels or without.

python -m tests.engine.kernel_logits MODEL OUTPUT.npz FOLDER [KERNELS:ROWS ...], where all KERNELS are the same: 0 or 1.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from server.engine.llama.context import Context, ContextShape
from server.engine.llama.model import Model
from server.engine.load_spec import LoadSpec

TOKENS = range(3, 15)


def main(path: str, output: str, folder: str, *wanted: str) -> None:
    own = wanted[0].startswith("1")
    spec = LoadSpec(
        path=path, name="m", digest="m", context=64, parallel=1, kernels=own, reorder=not own, state_dir=folder
    )
    context = Context(Model(spec, lambda _: None), spec, ContextShape(64, 1, False, 64, 64))
    context.set_threads(2, 2)
    found: dict[str, Any] = {}
    for each in wanted:
        rows = int(each.split(":")[1])
        context.drop(0)
        assert context.decode(TOKENS[:rows], range(rows), [0] * rows, range(rows))
        found[each] = context.logits(rows).copy()
    np.savez(output, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
