"""Training the demo model: AdamW with warm-up and a cosine, resumable at any step."""

# pyright: basic, reportMissingImports=false
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from demo import checkpoint, data
from demo.model import Llama
from demo.parallel import rows_of, sum_gradients

PEAK_RATE = 2e-3
FINAL_SHARE = 0.02  # of the peak rate, at the last step
WARM_UP_STEPS = 150
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.98)
CLIP_NORM = 1.0
LOG_EVERY = 10
SAVE_EVERY_SECONDS = 120
SNAPSHOT_EVERY_SECONDS = 600


@dataclass(frozen=True)
class Run:
    """Where one training run keeps its state and its result.

    Attributes:
        folder: The state a stopped run is resumed from, and the loss of every tenth step.
        out: The checkpoint folder, rewritten now and then while training.
        steps: The length of the schedule.
        seed: The seed of weights and data.
        peak: The highest learning rate.
        focus: Which categories of text are drawn more often than usual, and how many times.
    """

    folder: Path
    out: Path
    steps: int
    seed: int = 0
    peak: float = PEAK_RATE
    focus: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass
class Position:
    """How far a run has come: the step, and the place in the data stream."""

    step: int = 0
    chunk: int = 0
    batch: int = 0


def learning_rate(step: int, run: Run) -> float:
    """Return the rate at a step, counted from one: a linear warm-up, then a cosine to `FINAL_SHARE` of the peak."""
    warm_up = min(1.0, step / WARM_UP_STEPS)
    cosine = 0.5 * (1 + cos(pi * min(1.0, step / run.steps)))
    return run.peak * warm_up * (FINAL_SHARE + (1 - FINAL_SHARE) * cosine)


def device() -> torch.device:
    """Return the CUDA device where there is one, and the CPU elsewhere."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(place: torch.device) -> AbstractContextManager[Any]:
    """Return bf16 autocast where the hardware computes in it."""
    cpu_has_bf16 = "avx512_bf16" in cpu_flags()
    native = torch.cuda.is_bf16_supported(including_emulation=False) if place.type == "cuda" else cpu_has_bf16
    return torch.autocast(place.type, torch.bfloat16) if native else nullcontext()


def cpu_flags() -> list[str]:
    """Return the instruction sets of the CPU as Linux lists them; none elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.split() for line in lines if line.startswith("flags")), [])


def cross_entropy(logits: Tensor, batch: data.Batch) -> Tensor:
    """Return the weighted sum of the losses of a batch, given the logits of what is learned."""
    losses = functional.cross_entropy(logits.float(), batch.tokens[:, 1:][batch.learned], reduction="none")
    return (losses * batch.weights[batch.learned]).sum()


def divergence(logits: Tensor, batch: data.Batch, teacher: Llama) -> Tensor:
    """Return the weighted sum of the KL divergences from the teacher's probabilities, given the same logits."""
    with torch.no_grad():
        target = teacher(batch.tokens[:, :-1], batch.positions, batch.joined, batch.learned).log_softmax(-1)
    losses = functional.kl_div(logits.float().log_softmax(-1), target, reduction="none", log_target=True).sum(-1)
    return (losses * batch.weights[batch.learned]).sum()


def optimizer(model: Llama) -> torch.optim.AdamW:
    """Return AdamW that decays matrices but not norms."""
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [each for each in parameters if each.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=BETAS, fused=True)


def train(model: Llama, tokenizer: Tokenizer, run: Run, rank: int, teacher: Llama | None = None) -> None:
    """Train the model for `run.steps` steps, from where an earlier run in the same folder stopped.

    With a teacher, its probabilities are learned in place of the text itself (Hinton et al., "Distilling the Knowledge
    in a Neural Network", 2015).

    Writes `state.pt` and `loss.jsonl` to `run.folder`, and the checkpoint to `run.out`; only the first process writes.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    place = device()
    model.to(place).train()
    if teacher:
        teacher.to(place)
    adam = optimizer(model)
    position = restore(model, adam, run)
    if rank > 0:
        for batch in batches(run, tokenizer, position):
            step(model, adam, batch, learning_rate(position.step, run), rank, teacher)
        return
    saved = snapshot = time.monotonic()
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, (run.folder / "loss.jsonl").open("a", encoding="utf-8") as log:
        bar = progress.add_task("train", total=run.steps, completed=position.step)
        for batch in batches(run, tokenizer, position):
            loss = step(model, adam, batch, learning_rate(position.step, run), rank, teacher)
            progress.update(bar, completed=position.step)
            if position.step % LOG_EVERY == 0:
                entry = {"step": position.step, "loss": round(loss, 4), "time": round(time.time())}
                print(json.dumps(entry), file=log, flush=True)
            now = time.monotonic()
            if now - saved > SAVE_EVERY_SECONDS:
                store(model, adam, position, run)
                saved = now
            if now - snapshot > SNAPSHOT_EVERY_SECONDS:
                checkpoint.save(model, tokenizer, run.out)
                snapshot = now
    store(model, adam, position, run)
    checkpoint.save(model, tokenizer, run.out)


def step(
    model: Llama, adam: torch.optim.AdamW, batch: data.Batch, rate: float, rank: int, teacher: Llama | None
) -> float:
    """Take an optimizer step together with the other processes; return this one's mean loss before it."""
    for group in adam.param_groups:
        group["lr"] = rate
    place = device()
    total = batch.weights.sum().item()
    own = batch.rows(rows_of(rank), place)
    with autocast(place):
        logits = model(own.tokens[:, :-1], own.positions, own.joined, own.learned)
    loss = divergence(logits, own, teacher) if teacher else cross_entropy(logits, own)
    adam.zero_grad()
    (loss / total).backward()
    parameters = list(model.parameters())
    sum_gradients(parameters)
    torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
    adam.step()
    return loss.item() / own.weights.sum().item()


def batches(run: Run, tokenizer: Tokenizer, position: Position) -> Iterator[data.Batch]:
    """Yield the batches from `position` to the run's last step, moving the position past each."""
    while True:
        for batch in islice(data.chunk(run.seed, position.chunk, tokenizer, run.focus), position.batch, None):
            if position.step >= run.steps:
                return
            position.batch += 1
            position.step += 1
            yield batch
        position.chunk, position.batch = position.chunk + 1, 0


def store(model: Llama, adam: torch.optim.AdamW, position: Position, run: Run) -> None:
    """Save everything a resumed run needs, in place of what an earlier call saved."""
    fresh = run.folder / "state.pt.new"
    torch.save({"model": model.state_dict(), "adam": adam.state_dict(), "position": vars(position)}, fresh)
    os.replace(fresh, run.folder / "state.pt")


def restore(model: Llama, adam: torch.optim.AdamW, run: Run) -> Position:
    """Load what `store` saved and return its position; without a saved state, the beginning."""
    path = run.folder / "state.pt"
    if not path.exists():
        return Position()
    state = torch.load(path, map_location=device(), weights_only=True)
    model.load_state_dict(state["model"])
    adam.load_state_dict(state["adam"])
    return Position(**state["position"])
