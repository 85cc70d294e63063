"""Run as a process: loads a model by a LoadSpec from standard input, decodes greedily, tells what it did as JSON.

A process of its own, as the engine's worker is, so that llama.cpp's devices start afresh each time.
"""

from __future__ import annotations

import json
import sys
import time

import msgspec

from server.engine.draft import DraftModel
from server.engine.llama.backend import device_bytes
from server.engine.llama.context import Context, ContextShape
from server.engine.llama.model import Model
from server.engine.load_spec import IDLE_SEQUENCES, LoadSpec

PROMPT = [1, *range(300, 340)]


def decode(spec: LoadSpec, tokens: int, full_context: bool) -> dict[str, object]:
    """Greedy continuation of PROMPT; `full_context` first fills the context with outputs, to touch every buffer."""
    model = Model(spec, lambda _: None)
    placement = spec.placement
    sequences = spec.parallel + IDLE_SEQUENCES  # as the engine's worker makes it
    shape = ContextShape(spec.context, sequences, True, placement.n_batch, placement.n_ubatch)
    context = Context(model, spec, shape)
    context.set_threads(spec.threads or 1, spec.threads or 1)
    held = device_bytes()
    draft = DraftModel(spec, model.vocab, spec.context) if spec.draft_path else None
    if full_context:
        n = placement.n_ubatch
        for start in range(0, spec.context, n):
            context.decode([5] * n, range(start, start + n), [0] * n, range(n))
        context.drop(0)
    context.decode(PROMPT, range(len(PROMPT)), [0] * len(PROMPT), [len(PROMPT) - 1])
    output = [int(context.logits(1)[0].argmax())]
    times: list[float] = []
    for position in range(len(PROMPT), len(PROMPT) + tokens - 1):
        begun = time.perf_counter()
        context.decode([output[-1]], [position], [0], [0])
        output.append(int(context.logits(1)[0].argmax()))
        times.append(time.perf_counter() - begun)
    draft_bytes = draft.device_bytes if draft else {}
    return {"tokens": output, "step_seconds": times, "bytes": held, "draft_bytes": draft_bytes}


if __name__ == "__main__":
    request = json.loads(sys.stdin.readline())
    result = decode(msgspec.convert(request["spec"], LoadSpec), request["tokens"], request["full_context"])
    print(json.dumps(result), flush=True)
    sys.stdin.readline()  # hold everything until the test has looked at the workers' memory
