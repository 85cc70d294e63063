"""Fields of samplers and slots that brim has not, by other servers' names: taken as long as they are off.

Clients written for those servers send them with every request, set or not.
Source of the fields and their defaults: llama.cpp, tools/server/README.md; vLLM, its protocol's sampling parameters.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BeforeValidator

from server.api.whole_text import WholeTextRequest

DEFAULT_SAMPLERS = ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]
"""llama-server's; brim has the same, but for those that are off by default."""


def _off(*values: Any) -> BeforeValidator:
    def check(value: Any) -> Any:
        if value is not None and value not in values:
            raise ValueError(f"brim has nothing like it: leave it out, or set it to {json.dumps(values[0])}")
        return value

    return BeforeValidator(check)


Zero = Annotated[Any, _off(0)]
One = Annotated[Any, _off(1)]
No = Annotated[Any, _off(False)]
Yes = Annotated[Any, _off(True)]
Nothing = Annotated[Any, _off([])]


class AbsentFields(WholeTextRequest):
    """What every request to generate text takes."""

    id_slot: Any = None
    """Without effect, as the next four: brim has no fixed slots, never shifts a context, and pings nobody."""
    n_keep: Any = None
    n_discard: Any = None
    n_cache_reuse: Any = None
    sse_ping_interval: Any = None
    backend_sampling: Any = None
    """Without effect: where tokens are chosen is brim's own affair."""
    dynatemp_exponent: Any = None
    """Without effect, as the next: they say how something works that is off."""
    dry_base: Any = None
    dry_allowed_length: Any = None
    dry_penalty_last_n: Any = None
    dry_sequence_breakers: Any = None
    xtc_threshold: Any = None
    mirostat_tau: Any = None
    mirostat_eta: Any = None

    dynatemp_range: Zero = None
    dry_multiplier: Zero = None
    xtc_probability: Zero = None
    mirostat: Zero = None
    min_keep: Zero = None
    n_indent: Zero = None
    top_n_sigma: Annotated[Any, _off(-1, 0)] = None
    typical_p: One = None
    samplers: Annotated[Any, _off([], DEFAULT_SAMPLERS)] = None
    lora: Nothing = None
    post_sampling_probs: No = None
