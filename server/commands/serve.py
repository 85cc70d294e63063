"""`brim serve`: load models and answer HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path  # noqa: TC003 -- Typer looks at it when it runs
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from server import logs
from server.errors import BrimError

if TYPE_CHECKING:
    from server.models.manager import ModelManager
    from server.models.resolve import ModelSource
    from server.models.store import Store
    from server.serving import Serving
    from server.settings import Settings

Option = typer.Option

REFRESH = 0.1
"""Seconds between two looks at the progress."""


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL...", help="Names in the store, or paths of .gguf files.", show_default=False),
    ] = None,
    host: Annotated[str | None, Option(help="Address to listen on; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, Option(help="Port to listen on; 8080 by default, 0 takes a free one.")] = None,
    any_model: Annotated[
        bool | None, Option("--any-model", help="Answer with the first MODEL where a request names an unknown one.")
    ] = None,
    ctx: Annotated[int | None, Option(help="Context length of one request, in tokens.")] = None,
    parallel: Annotated[int | None, Option(help="Requests decoded side by side; 8 by default.")] = None,
    gpu_layers: Annotated[str | None, Option(metavar="auto|all|N", help="Layers on the GPU.")] = None,
    vram_budget: Annotated[str | None, Option(metavar="SIZE", help="GPU memory to use at most: 6GiB.")] = None,
    kv_type: Annotated[str | None, Option(metavar="f16|q8_0|q4_0", help="Type of the KV cache.")] = None,
    cache_ram: Annotated[str | None, Option(metavar="SIZE", help="Host memory for the prefix cache.")] = None,
    cache_disk: Annotated[str | None, Option(metavar="SIZE", help="Disk space for the prefix cache.")] = None,
    rpc: Annotated[str | None, Option(metavar="HOST:PORT,...", help="RPC workers to offload to.")] = None,
    api_key: Annotated[list[str] | None, Option(help="Key that clients must send; may be repeated.")] = None,
    api_key_file: Annotated[
        Path | None, Option(metavar="FILE", help="Keys, or their sha256: hashes, one a line.")
    ] = None,
    no_key: Annotated[bool | None, Option("--no-key", help="Let other machines in without a key.")] = None,
    draft: Annotated[str | None, Option(metavar="MODEL", help="Small model that proposes tokens.")] = None,
    projector: Annotated[
        str | None,
        Option("--projector", "--mmproj", metavar="FILE|none", help="Multimodal projector, to see images and hear."),
    ] = None,
    lookup: Annotated[bool | None, Option("--lookup/--no-lookup", help="Propose tokens by prompt lookup.")] = None,
    kernels: Annotated[
        bool | None, Option("--kernels/--no-kernels", help="Multiply weights on the CPU by brim's own kernels.")
    ] = None,
    kv_unified: Annotated[
        bool | None, Option("--kv-unified/--kv-split", help="One pool of KV cells, or a buffer for each request.")
    ] = None,
    threads: Annotated[int | None, Option(help="CPU threads; chosen by measurement by default.")] = None,
    tls_cert: Annotated[Path | None, Option(metavar="FILE", help="Certificate (PEM), to speak HTTPS.")] = None,
    tls_key: Annotated[Path | None, Option(metavar="FILE", help="The certificate's private key (PEM).")] = None,
    request_timeout: Annotated[
        float | None,
        Option(metavar="SECONDS", help="Time for a request to arrive and for a client to read on; 60 by default."),
    ] = None,
    max_connections: Annotated[int | None, Option(help="Connections open at once; 512 by default.")] = None,
    max_body: Annotated[str | None, Option(metavar="SIZE", help="Largest request body; 16MiB by default.")] = None,
    max_time: Annotated[
        str | None, Option(metavar="DURATION", help="Longest that an answer may take: 10m; unbounded by default.")
    ] = None,
    stream_interval: Annotated[
        float | None,
        Option(metavar="SECONDS", help="Tokens that come within it are sent together; 0.03 by default, 0 for none."),
    ] = None,
    rate_limit: Annotated[
        str | None, Option(metavar="N/minute", help="Requests of each API key, or address; also second, hour, day.")
    ] = None,
    log_prompts: Annotated[bool | None, Option("--log-prompts", help="Write prompts to the log.")] = None,
    log_json: Annotated[bool | None, Option("--log-json", help="Write the log as JSON, an object a line.")] = None,
    grace: Annotated[float | None, Option(metavar="SECONDS", help="Time for requests to end on SIGTERM.")] = None,
    keep_alive: Annotated[
        str | None, Option(metavar="DURATION", help="Unload a model so long after its last request; 5m by default.")
    ] = None,
    max_models: Annotated[
        int | None, Option(help="Models loaded at once; by default 3, and those named here beside them.")
    ] = None,
    debug: Annotated[bool | None, Option("--debug", help="Show tracebacks and llama.cpp's own log.")] = None,
) -> None:
    """Load models and answer HTTP: by default the store's only model, or the demo model if the store is empty."""
    from server import serving
    from server.settings import Settings

    flags: dict[str, Any] = {
        "models": tuple(models) if models else None,
        "host": host,
        "port": port,
        "any_model": any_model,
        "ctx": ctx,
        "parallel": parallel,
        "gpu_layers": gpu_layers,
        "vram_budget": vram_budget,
        "kv_type": kv_type,
        "cache_ram": cache_ram,
        "cache_disk": cache_disk,
        "rpc": rpc,
        "api_key": tuple(api_key) if api_key else None,
        "api_key_file": api_key_file,
        "no_key": no_key,
        "draft": draft,
        "projector": projector,
        "lookup": lookup,
        "kernels": kernels,
        "kv_unified": kv_unified,
        "threads": threads,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "request_timeout": request_timeout,
        "max_connections": max_connections,
        "max_body": max_body,
        "max_time": max_time,
        "stream_interval": stream_interval,
        "rate_limit": rate_limit,
        "log_prompts": log_prompts,
        "log_json": log_json,
        "grace": grace,
        "keep_alive": keep_alive,
        "max_models": max_models,
        "debug": debug,
    }
    settings = Settings.load(**flags)
    if settings.debug:
        logs.enable_debugging()
    logs.configure(as_json=settings.log_json, with_prompts=settings.log_prompts)
    os.environ.pop("BRIM_API_KEY", None)  # no child process needs it
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the server handles it
    from server.models.store import Store

    store = Store.default()
    sources = find_models(settings, store)
    serving.run(serving.serve(settings, store, sources, lambda running: _greet(running, settings, store)))


def find_models(settings: Settings, store: Store) -> list[ModelSource]:
    """The models to load: those named, fetched from the hub if need be; else the store's only one.

    That is the demo model where there was none.

    Raises:
        BrimError: a model is not there, its file is not sound, or there is not just one for a projector that is given.
    """
    from server.models.cli import progress_bar
    from server.models.create import ensure_demo
    from server.models.projector import NO_PROJECTOR
    from server.models.resolve import ensure_pulled, from_manifest, resolve, with_projector

    with progress_bar() as progress:
        for model in (*settings.models, *([settings.draft] if settings.draft else [])):
            ensure_pulled(model, store, progress)
    if settings.projector not in (None, NO_PROJECTOR) and len(settings.models) > 1:
        raise BrimError("--projector goes with one model; name the others' with PROJECTOR in their Modelfiles")
    if settings.models:
        return [resolve(model, store, settings.projector) for model in settings.models]
    with _progress() as bar:
        task = bar.add_task("making the demo model", total=None)
        ensure_demo(store, lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total))
    manifests = store.list()
    if len(manifests) == 1:
        return [with_projector(from_manifest(manifests[0], store), settings.projector)]
    if settings.projector not in (None, NO_PROJECTOR):
        raise BrimError("--projector goes with one model, and the store has several; name it")
    return []


async def wait_for_models(manager: ModelManager) -> None:
    """Show how far models have been loaded until all are. Raises LoadError if one cannot be."""
    loading = asyncio.ensure_future(manager.wait_until_loaded())
    with _progress() as bar:
        tasks = {status.name: bar.add_task(f"loading {status.name}", total=1.0) for status in manager.statuses()}
        while not loading.done():
            await asyncio.wait({loading}, timeout=REFRESH)
            for status in manager.statuses():
                bar.update(tasks[status.name], completed=status.progress, description=f"{status.name}: {status.stage}")
    await loading


async def _greet(serving: Serving, settings: Settings, store: Store) -> None:
    await wait_for_models(serving.manager)
    announce(serving, settings, store)


def announce(serving: Serving, settings: Settings, store: Store) -> None:
    """Say where the models lie and where to point a client."""
    console = Console(highlight=False)
    for model in serving.manager.loaded():
        info = model.info
        console.print(f"{model.name}: {model.engine.spec.placement.summary}", markup=False, style="bold")
        console.print(f"  context {info.context:,} tokens, {info.parallel} requests side by side", markup=False)
    if not serving.manager.loaded():
        names = ", ".join(manifest.name for manifest in store.list())
        console.print(f"No model is loaded yet; a request loads the one that it names: {names}", markup=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("OpenAI base URL", f"{serving.url}/v1")
    table.add_row("Chat page", f"{serving.url}/")
    table.add_row("API reference", f"{serving.url}/docs")
    if settings.api_key or settings.api_key_file:
        table.add_row("API key", "needed")
    console.print(table)
    console.print("Ctrl-C ends brim.")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
