"""How many of a draft model's proposals the main model accepts on the held-out set (`python -m demo.acceptance`)."""

# pyright: basic, reportMissingImports=false
import argparse
from collections.abc import Sequence

import torch
from rich.progress import track
from tokenizers import Tokenizer

from demo import CHECKPOINT, DRAFT, checkpoint
from demo.evaluate import MAX_TOKENS, Case, cases
from demo.model import Llama
from demo.template import render

PROPOSED = 4


def greedy(model: Llama, prompt: list[int], guess: list[int], end: int) -> list[int]:
    """Return the model's greedy continuation of the prompt, up to and with the end token.

    The guess is verified in one forward pass, so a right one costs no more than that.
    """
    written: list[int] = []
    while len(written) < MAX_TOKENS and written[-1:] != [end]:
        best = choices(model, prompt + written, guess)
        right = next((at for at, token in enumerate(guess) if best[at] != token), len(guess))
        written += best[: min(right + 1, len(best))]
        guess = []
        if end in written:
            written = written[: written.index(end) + 1]
    return written


@torch.no_grad()
def choices(model: Llama, prefix: list[int], continuation: Sequence[int]) -> list[int]:
    """Return the model's likeliest token at each place of the continuation and after it."""
    logits = model(torch.tensor([[*prefix, *continuation]]))
    return logits[0, len(prefix) - 1 :].argmax(-1).tolist()


def count(written: list[int], proposals: list[int]) -> tuple[int, int]:
    """Return how many tokens were proposed and accepted while `written` was generated.

    Args:
        written: The main model's tokens, the last of which ends the answer.
        proposals: What the draft model proposes at each of these places when all before it is as written. That is all
            there is to know: behind a wrong proposal nothing is accepted.
    """
    proposed = accepted = at = 0
    while at < len(written):
        window = range(at, min(at + PROPOSED, len(written)))
        right = next((place - at for place in window if proposals[place] != written[place]), len(window))
        accepted += right
        proposed += right if at + right == len(written) else PROPOSED
        at += right + 1
    return proposed, accepted


def measure(main: Llama, draft: Llama, tokenizer: Tokenizer, chosen: Sequence[Case]) -> float:
    """Return the share of accepted proposals over all cases."""
    end = tokenizer.get_vocab()["<|im_end|>"]
    proposed = accepted = 0
    for case in track(chosen, description="drafting"):
        prompt = render(case.messages, case.tools, generate=True)
        whole = render([*case.messages, case.expected], case.tools)
        tokens = tokenizer.encode(prompt, add_special_tokens=False).ids
        guess = tokenizer.encode(whole.removeprefix(prompt).rstrip(), add_special_tokens=False).ids
        written = greedy(main, tokens, guess, end)
        more = count(written, choices(draft, tokens, written[:-1]))
        proposed, accepted = proposed + more[0], accepted + more[1]
    return accepted / proposed


def main() -> None:
    """Print the share of accepted proposals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="cases per category")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    model, tokenizer = checkpoint.load(CHECKPOINT)
    draft, _ = checkpoint.load(DRAFT)
    chosen = cases(arguments.count, arguments.seed)
    print(f"{measure(model, draft, tokenizer, chosen):.1%} of the proposals accepted, {PROPOSED} at a time")


if __name__ == "__main__":
    main()
