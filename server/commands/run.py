"""`brim run`: one answer, or a conversation, in the terminal."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server import logs
from server.errors import BrimError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx

    from server.settings import Settings

QUICKLY = 1.0
"""Seconds in which a server on this machine tells what models it has."""
PROMPT = ">>> "


def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name in the store, or path of a .gguf file.")],
    prompt: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to say; else a chat.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(help="How freely tokens are drawn; 0 not at all.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue PROMPT as plain text, without a chat template.")] = False,
) -> None:
    """Talk to a model: one answer where PROMPT is given or piped in, else a chat. Uses a running server if it can."""
    from server.models.manifest import ModelName, names_repository
    from server.serving import run as run_to_end
    from server.settings import Settings

    logs.configure()
    text = " ".join(prompt) if prompt else None
    if text is None and not sys.stdin.isatty():
        text = sys.stdin.read()
    if raw and text is None:
        raise BrimError("--raw continues a text: give a PROMPT")
    options = {"temperature": temperature, "max_tokens": max_tokens}
    if names_repository(model):
        model = str(ModelName.parse(model))  # as a server that runs calls it
    conversation = Conversation(model, {name: value for name, value in options.items() if value is not None}, system)
    run_to_end(_run(conversation, text, Settings.load(no_key=True), raw=raw))


class Conversation:
    """What has been said so far, and how it goes on.

    Args:
        model: whom to ask.
        options: further fields of each request.
        system: the system prompt, if there is one.
    """

    def __init__(self, model: str, options: dict[str, Any], system: str | None) -> None:
        self.model = model
        self._options = options
        self._messages = [{"role": "system", "content": system}] if system else []

    async def say(self, client: httpx.AsyncClient, text: str) -> None:
        """Send a message and print the answer as it comes."""
        from server.commands.client import events

        messages = [*self._messages, {"role": "user", "content": text}]
        body = {**self._options, "model": self.model, "messages": messages, "stream": True}
        answer = ""
        async for chunk in events(client, "/v1/chat/completions", body):
            for choice in chunk["choices"]:
                piece = choice["delta"].get("content") or ""
                answer += piece
                _print(piece)
        _print("\n")
        self._messages = [*messages, {"role": "assistant", "content": answer}]

    async def go_on(self, client: httpx.AsyncClient, text: str) -> None:
        """Print a plain text and its continuation."""
        from server.commands.client import events

        _print(text)
        body = {"max_tokens": 256, **self._options, "model": self.model, "prompt": text, "stream": True}
        async for chunk in events(client, "/v1/completions", body):
            for choice in chunk["choices"]:
                _print(choice["text"])
        _print("\n")


async def _run(conversation: Conversation, text: str | None, settings: Settings, *, raw: bool) -> None:
    async with _client(conversation, settings) as client:
        if raw and text is not None:
            await conversation.go_on(client, text)
        elif text is not None:
            await conversation.say(client, text)
        else:
            await _chat(conversation, client)


async def _chat(conversation: Conversation, client: httpx.AsyncClient) -> None:
    import asyncio
    import readline  # noqa: F401  # pyright: ignore[reportUnusedImport] -- gives input() a line editor

    typer.echo(f"{conversation.model} listens. Ctrl-D ends the chat.")
    while True:
        try:
            line = await asyncio.to_thread(input, PROMPT)
        except EOFError:
            typer.echo()
            return
        if line.strip():
            await conversation.say(client, line)


@contextlib.asynccontextmanager
async def _client(conversation: Conversation, settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of the server that runs at the configured address and has the model; else of one started for this."""
    from server.commands.client import connect, serves

    async with connect(settings) as client:
        if await serves(client, conversation.model, QUICKLY):
            yield client
            return
    async with _own_server(conversation, settings) as client:
        yield client


@contextlib.asynccontextmanager
async def _own_server(conversation: Conversation, settings: Settings) -> AsyncGenerator[httpx.AsyncClient]:
    from server.commands.client import connect
    from server.commands.serve import wait_for_models
    from server.models.cli import progress_bar
    from server.models.resolve import ensure_pulled, resolve
    from server.models.store import Store
    from server.serving import serving

    store = Store.default()
    with progress_bar() as progress:
        ensure_pulled(conversation.model, store, progress)
    source = resolve(conversation.model, store, settings.projector)
    conversation.model = source.name
    private = settings.model_copy(update={"host": "127.0.0.1", "port": 0})
    async with serving(private, store, [source]) as running:
        await wait_for_models(running.manager)
        async with connect(private, running.url) as client:
            yield client


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
