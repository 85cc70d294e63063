"""Times what a grammar costs for each token, beside a decoding step of the model whose vocabulary it is.

    python -m benchmarks.models qwen0.5b model.gguf --quant Q4_K_M
    python -m benchmarks.grammar model.gguf

Tokens are drawn at temperature 1 from random logits, so that the grammar sees what is hardest for it: tokens that no
model would say. Its times are the processor's, so that a busy machine does not falsify them; the step's is that of the
fastest of several, so that the share is rather too large than too small.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from server.engine.cores import cpu_name, usable_cores
from server.engine.grammar import Grammars
from server.engine.llama.context import Context, ContextShape
from server.engine.llama.model import Model
from server.engine.load_spec import LoadSpec
from server.engine.request import Grammar

if TYPE_CHECKING:
    from server.engine.constraint import OutputConstraint

RESULTS = Path(__file__).parent / "results"
CALL = {
    "type": "object",
    "properties": {
        "name": {"const": "search"},
        "arguments": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "minLength": 1},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}},
                "order": {"enum": ["newest", "best"]},
            },
            "required": ["query", "limit", "tags", "order"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "arguments"],
    "additionalProperties": False,
}
GRAMMARS = {
    "a tool call's schema": Grammar("json_schema", json.dumps(CALL)),
    "any JSON object": Grammar("json_object", ""),
    "a regex": Grammar("regex", "[A-Z][a-z]+( [a-z]+){3,20}\\."),
    "free text, then a list": Grammar("lark", 'start: /[^-]*/ ("- " /[^\\n-]+/ "\\n")+'),
}


def step_seconds(model: Model, spec: LoadSpec, threads: int, steps: int = 10) -> float:
    """The least time of a decoding step of one sequence with 64 tokens."""
    context = Context(model, spec, ContextShape(cells=256, sequences=1, unified=True, batch=64, ubatch=64))
    context.set_threads(threads, threads)
    context.decode([1] * 64, range(64), [0] * 64, [63])
    taken: list[float] = []
    for position in range(64, 64 + steps):
        begun = time.perf_counter()
        context.decode([1], [position], [0], [0])
        context.logits(1)
        taken.append(time.perf_counter() - begun)
    context.close()
    return min(taken)


def follow(constraint: OutputConstraint, size: int, seed: int, most: int) -> list[float]:
    """Seconds that each of up to `most` random tokens takes: finding what may come, applying it, going on by one."""
    random = np.random.default_rng(seed)
    taken: list[float] = []
    while len(taken) < most and not constraint.complete:
        row = random.normal(0, 2, size).astype(np.float32)
        noise = random.gumbel(size=size).astype(np.float32)
        begun = time.thread_time()
        few = constraint.restrict(row)
        taken.append(time.thread_time() - begun)
        token = int((row + noise).argmax()) if few is None else int(few[(row[few] + noise[few]).argmax()])
        begun = time.thread_time()
        constraint.take(token)
        taken[-1] += time.thread_time() - begun
    return taken


def main(
    model: Annotated[Path, typer.Argument(help="A GGUF file.")],
    runs: Annotated[int, typer.Option(help="Answers drawn for each grammar.")] = 5,
    tokens: Annotated[int, typer.Option(help="Tokens of an answer at most.")] = 200,
    threads: Annotated[int, typer.Option(help="CPU threads of a step.")] = usable_cores(),
) -> None:
    """Print microseconds a token for each grammar and its share of a step; write benchmarks/results/grammar.md."""
    spec = LoadSpec(path=str(model), name=model.stem, digest="")
    loaded = Model(spec, lambda _: None)
    step = step_seconds(loaded, spec, threads)
    grammars = Grammars(loaded.vocab)
    begun = time.thread_time()
    grammars.constraint(GRAMMARS["a regex"], frozenset(), ignore_eos=True)
    reading = time.thread_time() - begun
    lines = [
        "# What a grammar costs",
        "",
        f"{model.stem} on {cpu_name()}, {threads} threads: a step takes {step * 1e3:.1f} ms. Its vocabulary of",
        f"{loaded.vocab.size:,} is read for grammars once, in {reading:.2f} s. Tokens are drawn from random logits.",
        "",
        "| grammar | compiled in, ms | mean, us a token | median | 95 % | mean's share of a step |",
        "|---|---|---|---|---|---|",
    ]
    for name, grammar in GRAMMARS.items():
        begun = time.thread_time()
        grammars.constraint(grammar, frozenset(), ignore_eos=True)
        compiled = time.thread_time() - begun
        taken: list[float] = []
        for seed in range(runs):
            constraint = grammars.constraint(grammar, frozenset(), ignore_eos=True)
            taken += follow(constraint, loaded.vocab.size, seed, tokens)
        mean, middle, high = (f"{1e6 * t:.0f}" for t in (fmean(taken), median(taken), quantiles(taken, n=20)[-1]))
        share = f"{fmean(taken) / step:.2%}"
        lines.append(f"| {name} | {compiled * 1e3:.1f} | {mean} | {middle} | {high} | {share} |")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "grammar.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
