"""How a request is generated, told by llama-server's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import structs

if TYPE_CHECKING:
    from server.engine.request import Generate


def generation_settings(request: Generate, context: int) -> dict[str, Any]:
    """The settings of a request, as /completion and /props give them back.

    Args:
        request: in the engine's form.
        context: tokens that a request may have in all.
    """
    sampling = structs.asdict(request.sampling)
    bias = sampling.pop("logit_bias")
    seed = sampling.pop("seed")
    limit = -1 if request.max_tokens is None else request.max_tokens
    return sampling | {
        "seed": -1 if seed is None else seed,
        "logit_bias": [{"token": token, "bias": value} for token, value in bias.items()],
        "n_predict": limit,
        "max_tokens": limit,
        "n_ctx": context,
        "stop": request.stop,
        "ignore_eos": request.ignore_eos,
        "n_probs": request.logprobs or 0,
        "grammar": request.grammar.source if request.grammar else "",
    }
