"""From a model's files to a running engine: placement, the worker's orders, the chat template."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from msgspec import structs

from server.chat.formats import named
from server.chat.renderer import Renderer
from server.engine.client import Engine
from server.engine.load_spec import LoadSpec, Placement
from server.errors import BrimError, LoadError
from server.models.embedding import plan_embedder
from server.models.projector import NO_PROJECTOR
from server.models.resolve import ModelSource, resolve
from server.models.store import Store
from server.offload import Choice, Wish, choose, companions_of, difference, draft_placement, learn, step_down
from server.offload.holding import Holding, holdings
from server.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from server.engine.client import Progress
    from server.engine.load_spec import ModelInfo
    from server.models.ledger import Ledger
    from server.settings import Settings

logger = logging.getLogger(__name__)

LARGEST_DEFAULT_RAM_CACHE = 8 * 1024**3


@dataclass(frozen=True)
class LoadedModel:
    """A model that can answer.

    Attributes:
        loaded_at: by the monotonic clock.
        holdings: what each device holds of it, planned and allocated.
        predicted: tokens a second for one request alone; None where what was loaded is not what was planned.
    """

    source: ModelSource
    engine: Engine
    template: Renderer
    loaded_at: float
    holdings: tuple[Holding, ...] = ()
    predicted: float | None = None

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.source.name

    @property
    def info(self) -> ModelInfo:
        """What the worker found the model to be."""
        return self.engine.info

    async def stop(self, grace: float) -> None:
        """End its processes, letting running requests end within `grace` seconds."""
        try:
            await self.engine.stop(grace)
        finally:
            await self.template.aclose()

    async def kill(self) -> None:
        """End its processes at once."""
        try:
            await self.engine.kill()
        finally:
            await self.template.aclose()

    def with_preamble(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """A conversation behind what the Modelfile puts before each: MESSAGEs, and SYSTEM unless there is one."""
        has_system = bool(messages) and messages[0]["role"] == "system"
        given = [messages[0]] if has_system else []
        if not has_system and self.source.system:
            given = [{"role": "system", "content": self.source.system}]
        return [*given, *self.source.messages, *messages[has_system:]]


async def load(
    source: ModelSource, settings: Settings, on_progress: Progress, ledger: Ledger, *, embedding: bool = False
) -> LoadedModel:
    """Start an engine for a model: decide what goes where, then read its weights.

    Where a device turns out to have too little memory, it is tried again with less on the devices. With `embedding`,
    it gives embeddings instead of text.

    Args:
        ledger: says what other models hold, and is told what this one does.

    Raises:
        LoadError: it could not be loaded.
    """
    async with AsyncExitStack() as turn:
        await turn.enter_async_context(ledger.turn)
        try:
            plan = plan_embedder if embedding else _plan
            if source.parameters.chat_format:
                named(source.parameters.chat_format)  # that it is unknown need not wait for the weights
            spec, choice = await asyncio.to_thread(plan, source, settings, ledger.held())
            if not embedding:
                spec = structs.replace(spec, cache_ram=_ram_cache(settings, choice.host_free - ledger.ram_caches))
        except BrimError as error:
            raise LoadError(f"{source.name} could not be loaded: {error}") from error
        # with all on the CPU there is nothing that the next model's plan would have to wait for
        if not (spec.placement.devices or spec.draft_placement.devices or spec.projector_device):
            await turn.aclose()
        engine = await _start(spec, on_progress)
        as_planned = engine.spec == spec and spec.placement == choice.placement
        shares = choice.shares if as_planned else [replace(share, planned=None) for share in choice.shares]
        held = holdings(shares, {"model": engine.info.device_bytes, **engine.info.companion_bytes})
        ledger.enter(engine, held)
    _compare(spec.name, held)
    info = engine.info
    template = Renderer(
        source.template if source.template is not None else info.chat_template,
        {"bos_token": info.bos_token, "eos_token": info.eos_token},
        source.parameters.chat_format,
    )
    predicted = choice.tokens_per_second if as_planned else None
    model = LoadedModel(source, engine, template, time.monotonic(), held, predicted)
    try:
        if engine.spec != spec:
            await asyncio.to_thread(learn, choice, engine.spec)
        if not embedding:
            await template.start()
    except BaseException:  # it is no longer wanted, and nobody has it yet who could end it
        await model.kill()
        raise
    return model


def _compare(name: str, held: Sequence[Holding]) -> None:
    """Warn of each device that holds notably more or less than was planned."""
    for holding in held:
        if holding.deviates and holding.share.planned is not None:
            logger.warning(
                "%s: %s holds %s, where %s was planned",
                name,
                holding.share.device,
                format_size(holding.allocated),
                format_size(holding.share.planned),
            )


async def _start(spec: LoadSpec, on_progress: Progress) -> Engine:
    while True:
        try:
            return await Engine.start(spec, on_progress=on_progress)
        except LoadError as error:
            smaller = step_down(spec) if error.out_of_memory else None
            if smaller is None:
                raise
            logger.warning("%s ran out of device memory; trying again with %s", spec.name, difference(spec, smaller))
            spec = smaller


def _plan(source: ModelSource, settings: Settings, held: Mapping[str, int]) -> tuple[LoadSpec, Choice]:
    """All that a worker is told. What the user set counts before the Modelfile, and that before the defaults.

    Args:
        held: bytes that other models hold, by llama.cpp's name of the device's memory.
    """
    own = source.parameters
    given = settings.model_fields_set

    def chosen(setting: str, value: Any) -> Any:
        return value if value is not None and setting not in given else getattr(settings, setting)

    draft_path = resolve(settings.draft, Store.default(), NO_PROJECTOR).path if settings.draft else source.draft
    wish = Wish(
        context=chosen("ctx", own.num_ctx),
        parallel=chosen("parallel", own.num_parallel),
        kv_type=chosen("kv_type", own.kv_type),
        gpu_layers=chosen("gpu_layers", own.num_gpu),
        vram_budget=settings.vram_budget,
        held=held,
        kv_unified=settings.kv_unified,
        companions=companions_of(draft=draft_path, projector=source.projector),
    )
    choice = choose(source.path, wish, rpc=settings.rpc)
    draft, projector = choice.guest("draft"), choice.guest("projector")
    spec = LoadSpec(
        path=str(source.path),
        name=source.name,
        digest=source.digest,
        placement=choice.placement,
        context=choice.context,
        kv_cells=choice.pool,
        parallel=wish.parallel,
        kv_type=chosen("kv_type", own.kv_type),
        rpc=choice.rpc,
        threads=chosen("threads", own.num_thread),
        adapters=source.adapters,
        weights_stay=choice.host_free >= 0,
        cache_disk=settings.cache_disk,
        cache_dir=str(settings.cache_dir),
        state_dir=str(settings.state_dir),
        draft_path=str(draft_path or ""),
        draft_placement=draft_placement(draft) if draft else Placement(),
        projector_path=str(source.projector or ""),
        projector_device=projector.device if projector else "",
        lookup=settings.lookup,
        kernels=settings.kernels and choice.kernels,
        reorder=choice.reorder,
        stream_interval=settings.stream_interval,
        kv_unified=settings.kv_unified,
    )
    return spec, choice


def _ram_cache(settings: Settings, free: int) -> int:
    """Bytes for a model's prefix cache in RAM. Unless they are set, they are so few that weights stay in memory.

    Args:
        free: bytes of memory that the model leaves, and the other models' caches.
    """
    if settings.cache_ram is not None:
        return settings.cache_ram
    return max(0, min(free // 4, LARGEST_DEFAULT_RAM_CACHE))
