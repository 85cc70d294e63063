"""Makes LiteLLM's calls for tests that run in another environment: a line of JSON in, a line of JSON out.

In: `{"function": "completion", "arguments": {...}}`. Out: `{"answer": ...}`, where a stream is the list of its chunks,
or `{"error": [name, message]}`.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

litellm: Any = importlib.import_module("litellm")


def plain(answer: Any) -> Any:
    """An answer, or a stream of them, as JSON holds it."""
    if hasattr(answer, "model_dump"):
        return answer.model_dump(mode="json")
    return [plain(chunk) for chunk in answer]


def main() -> None:
    """Answer each line of stdin on stdout, which LiteLLM's own words are kept from."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        call = json.loads(line)
        try:
            told = {"answer": plain(getattr(litellm, call["function"])(**call["arguments"]))}
        except Exception as error:
            told = {"error": [type(error).__name__, str(error)]}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
