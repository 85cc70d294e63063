"""What the servers are asked to do: each workload gives one or two figures."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Sequence

HANGING = 300.0
"""Seconds without a byte after which a server counts as hanging; the slowest take 20."""
WORDS = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
]

Figures = dict[str, float]
Workload = Callable[["Client"], Awaitable[Figures]]


@dataclass(slots=True)
class Reply:
    """One streamed answer.

    Attributes:
        ttft: seconds to the first token. seconds: in all. tokens: how many there were. arrivals: when each event came.
    """

    ttft: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    text: str = ""
    arrivals: list[float] = field(default_factory=list[float])


class Client:
    """Asks one server for greedy completions of a fixed length."""

    def __init__(self, url: str, model: str, seed: int) -> None:
        self._http = httpx.AsyncClient(
            timeout=HANGING, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )
        self._url = f"{url}/v1/completions"
        self._model = model
        self.random = random.Random(seed)
        self.tokens_per_word = 1.0

    async def complete(self, prompt: str, tokens: int, into: Reply | None = None, *, to_its_end: bool = False) -> Reply:
        """Stream a completion of exactly `tokens` tokens; `into` can be looked at while it comes.

        Args:
            to_its_end: whether the answer may end before.
        """
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": not to_its_end,
        }
        reply, begun = into or Reply(), time.perf_counter()
        async with self._http.stream("POST", self._url, json=body) as response:
            if response.status_code != 200:
                raise RuntimeError(f"{response.status_code}: {await response.aread()!r}")
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    self._read(json.loads(line[6:]), reply)
        reply.tokens = reply.tokens or len(reply.arrivals)  # not every server tells
        reply.seconds = time.perf_counter() - begun
        reply.ttft = (reply.arrivals[0] if reply.arrivals else time.perf_counter()) - begun
        return reply

    def _read(self, event: dict[str, Any], reply: Reply) -> None:
        choices: list[dict[str, Any]] = event.get("choices") or []
        usage: dict[str, int] | None = event.get("usage")
        if choices:
            reply.arrivals.append(time.perf_counter())
            reply.text += str(choices[0].get("text", ""))
        if usage is not None:
            reply.tokens = usage["completion_tokens"]

    def text(self, words: int) -> str:
        """Random words."""
        return " ".join(self.random.choice(WORDS) for _ in range(words))

    def text_of(self, tokens: int) -> str:
        """Random words of about so many tokens."""
        return self.text(round(tokens / self.tokens_per_word))

    async def calibrate(self) -> None:
        """Find out how many tokens a word has."""
        body = {"model": self._model, "prompt": self.text(200), "max_tokens": 1}
        usage = (await self._http.post(self._url, json=body)).json()["usage"]
        self.tokens_per_word = usage["prompt_tokens"] / 200

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()


def single(tokens: int = 64) -> Workload:
    """One stream of so many tokens."""

    async def run(client: Client) -> Figures:
        reply = await client.complete(client.text_of(30), tokens)
        return {"tokens per second": (reply.tokens - 1) / (reply.seconds - reply.ttft)}

    return run


def batch(streams: int, tokens: int = 64) -> Workload:
    """Several streams at once behind distinct prompts, of so many tokens each."""

    async def run(client: Client) -> Figures:
        begun = time.perf_counter()
        replies = await asyncio.gather(*(client.complete(client.text_of(60), tokens) for _ in range(streams)))
        return {"tokens per second": sum(reply.tokens for reply in replies) / (time.perf_counter() - begun)}

    return run


async def long_prompt(client: Client) -> Figures:
    """One prompt of 2,000 tokens, nothing of it cached."""
    return {"TTFT": (await client.complete(client.text_of(2000), 2)).ttft}


async def shared_prefix(client: Client) -> Figures:
    """8 streams behind one long prefix that was computed once before."""
    prefix = client.text_of(1000)
    await client.complete(prefix, 1)
    begun = time.perf_counter()
    replies = await asyncio.gather(*(client.complete(f"{prefix} {client.text_of(20)}", 32) for _ in range(8)))
    seconds = time.perf_counter() - begun
    return {
        "TTFT": statistics.median(reply.ttft for reply in replies),
        "tokens per second": sum(reply.tokens for reply in replies) / seconds,
    }


async def conversations(client: Client) -> Figures:
    """12 conversations, more than there are slots, visited in turn; the first turns do not count.

    Next turns leave the answers out: random weights write bytes that read back as many more tokens.
    """
    histories = [client.text_of(500) for _ in range(12)]
    ttfts: list[float] = []
    for turn in range(3):
        for i in range(len(histories)):
            reply = await client.complete(histories[i], 8)
            if turn:
                ttfts.append(reply.ttft)
            histories[i] += f" {client.text_of(25)}"
    return {"TTFT": statistics.median(ttfts)}


async def before_restart(client: Client) -> list[str]:
    """8 conversations of some 1,000 tokens; returns their next turns, without the answers as in `conversations`."""
    histories = [client.text_of(1000) for _ in range(8)]
    for text in histories:
        await client.complete(text, 8)
    return [f"{text} {client.text_of(20)}" for text in histories]


async def after_restart(client: Client, histories: Sequence[str]) -> Figures:
    """Their next turns."""
    return {"TTFT": statistics.median([(await client.complete(text, 8)).ttft for text in histories])}


async def intrusion(client: Client) -> Figures:
    """A prompt of 5,000 tokens that arrives among 4 running streams: their worst gap, and its own time."""
    replies = [Reply() for _ in range(4)]
    streams = [asyncio.create_task(client.complete(client.text_of(30), 1500, reply)) for reply in replies]
    while not all(len(reply.arrivals) > 20 for reply in replies):
        await asyncio.sleep(0.1)
    begun = time.perf_counter()
    newcomer = await client.complete(client.text_of(5000), 2)
    await asyncio.sleep(1.0)
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    return {"worst gap": max(_worst_gap(reply.arrivals, begun) for reply in replies), "TTFT": newcomer.ttft}


def _worst_gap(arrivals: Sequence[float], since: float) -> float:
    last = max(i for i, moment in enumerate(arrivals) if moment <= since)
    return max(later - earlier for earlier, later in itertools.pairwise(arrivals[last:]))


async def edit(client: Client) -> Figures:
    """Stories that are asked for once more: as in an edit or a summary, most of the answer stands in the prompt."""
    tokens, seconds = 0, 0.0
    for animal, name in itertools.product(("lion", "horse", "duck", "cow"), ("Tom", "Anna")):
        question = (
            f"<|im_start|>user\nTell me a story about a {animal} called {name}.<|im_end|>\n<|im_start|>assistant\n"
        )
        told = await client.complete(question, 128, to_its_end=True)
        again = await client.complete(f"{question}{told.text}<|im_end|>\n{question}", 128, to_its_end=True)
        tokens += again.tokens - 1
        seconds += again.seconds - again.ttft
    return {"tokens per second": tokens / seconds}
