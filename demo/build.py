"""The one command that repeats the demo model: tokenizer, training, draft and loss curve (`python -m demo.build`)."""

# pyright: basic, reportMissingImports=false
import argparse
import json
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from matplotlib import pyplot
from tokenizers import Tokenizer

from demo import CHECKPOINT, DRAFT, checkpoint, tokenizer
from demo.conversations import training_examples
from demo.model import DRAFT as DRAFT_SHAPE
from demo.model import MAIN, Llama
from demo.parallel import launch
from demo.template import training_text
from demo.train import Run, train

TOKENIZER_EXAMPLES = 40_000
STEPS = 5900
POLISH_STEPS = 550
POLISH_RATE = 6e-4
POLISH_FOCUS = {"tools": 2.5, "instructions": 1.5}
"""What is learned last and more often: of tools and of capital letters the mixture alone shows too little."""
POLISH_SEED = 2
DRAFT_STEPS = 500
DRAFT_SEED = 1  # other text than the main model saw


def make_tokenizer(seed: int) -> Tokenizer:
    """Train the tokenizer on the first part of the training text."""
    return tokenizer.train(training_text(example) for example in islice(training_examples(seed), TOKENIZER_EXAMPLES))


def train_main(run: Run, vocabulary: Path, rank: int) -> None:
    """Train the main model, as the process of this rank."""
    torch.manual_seed(run.seed)
    train(Llama(MAIN), Tokenizer.from_file(str(vocabulary)), run, rank)


def polish_main(run: Run, rank: int) -> None:
    """Train the main model a little further, as the process of this rank."""
    model, loaded = checkpoint.load(run.out)
    train(model, loaded, run, rank)


def train_draft(run: Run, rank: int) -> None:
    """Train the draft model on the main model's probabilities, as the process of this rank."""
    torch.manual_seed(run.seed)
    teacher, loaded = checkpoint.load(CHECKPOINT)
    draft = Llama(DRAFT_SHAPE)
    draft.embed_tokens.weight.data.copy_(teacher.embed_tokens.weight)
    train(draft, loaded, run, rank, teacher)


def plot(log: Path, picture: Path) -> None:
    """Draw the loss curve of a run, each point the mean of some steps."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    by_step = {entry["step"]: entry["loss"] for entry in entries}  # a resumed run may log a step again
    steps = sorted(by_step)
    window = 10
    means = [sum(by_step[each] for each in steps[at : at + window]) / window for at in range(len(steps) - window + 1)]
    figure, axes = pyplot.subplots(figsize=(8, 4))
    axes.plot(steps[window - 1 :], means)
    axes.set(xlabel="step of 2,048 tokens", ylabel="training loss (nats)", yscale="log", title="brim demo model")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=100)


def main() -> None:
    """Build the demo model, or go on building it where an earlier call was stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder of the resumable state")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of 2,048 tokens each")
    parser.add_argument("--polish-steps", type=int, default=POLISH_STEPS, help="the same for its last part")
    parser.add_argument("--draft-steps", type=int, default=DRAFT_STEPS, help="the same for the draft model")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    vocabulary = arguments.work / "tokenizer.json"
    arguments.work.mkdir(parents=True, exist_ok=True)
    if not vocabulary.exists():
        make_tokenizer(arguments.seed).save(str(vocabulary))
    main_run = Run(arguments.work / "main", CHECKPOINT, arguments.steps, arguments.seed)
    polish_run = Run(
        arguments.work / "polish", CHECKPOINT, arguments.polish_steps, POLISH_SEED, POLISH_RATE, POLISH_FOCUS
    )
    draft_run = Run(arguments.work / "draft", DRAFT, arguments.draft_steps, DRAFT_SEED)
    launch(partial(train_main, main_run, vocabulary))
    launch(partial(polish_main, polish_run))
    launch(partial(train_draft, draft_run))
    plot(main_run.folder / "loss.jsonl", CHECKPOINT.parent / "loss.png")


if __name__ == "__main__":
    main()
