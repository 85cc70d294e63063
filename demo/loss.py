"""How surprised a served model is by the right answers: the mean loss of their tokens, over the OpenAI API.

Shares of right answers move in steps of whole answers; this figure shows what smaller changes of the weights cost.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from rich.progress import track

from demo.evaluate import CONCURRENT, Case
from demo.template import render


async def mean_loss(chosen: Sequence[Case], url: str, model: str, key: str) -> float:
    """Return the mean negative log-probability of the expected answers' tokens, in nats.

    Args:
        chosen: The cases; each answer is read behind its own conversation.
        url: Of the API, `/v1` included; its completions must be able to echo log-probabilities.
        model: The model's name there.
        key: The API key.
    """
    from openai import AsyncOpenAI

    create: Any = AsyncOpenAI(base_url=url, api_key=key).completions.create
    gate = asyncio.Semaphore(CONCURRENT)

    async def losses(case: Case) -> list[float]:
        opening = render(case.messages, case.tools, generate=True)
        whole = render((*case.messages, case.expected), case.tools)
        async with gate:
            completion: Any = await create(
                model=model, prompt=whole, max_tokens=1, echo=True, logprobs=0, temperature=0
            )
        logprobs = completion.choices[0].logprobs
        pairs = zip(logprobs.text_offset, logprobs.token_logprobs, strict=True)
        return [-value for offset, value in pairs if len(opening) <= offset < len(whole)]

    tasks = [asyncio.create_task(losses(case)) for case in chosen]
    found = [loss for task in track(tasks, description="reading") for loss in await task]
    return sum(found) / len(found)
