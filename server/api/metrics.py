"""GET /metrics, in Prometheus's text format: the workers' own figures, and what HTTP saw."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.context import ContextOf
from server.engine.messages import Stats
from server.errors import RequestError
from server.models.loading import LoadedModel

router = APIRouter(tags=["Operation"])

SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
ANSWER_WITHIN = 5.0


class HttpMetrics:
    """ASGI middleware that counts and times requests, by route and status."""

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry) -> None:
        self._app = app
        names = ("method", "route")
        self._requests = Counter("brim_http_requests", "Requests answered.", (*names, "status"), registry=registry)
        self._seconds = Histogram(
            "brim_http_seconds", "Time to the answer's end.", names, buckets=SECONDS, registry=registry
        )
        self._open = Gauge("brim_http_requests_open", "Requests being answered.", registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499  # what nginx notes when the client left before the answer began

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        self._open.inc()
        try:
            await self._app(scope, receive, noting)
        except Exception:
            status = 500
            raise
        finally:
            self._open.dec()
            route = getattr(scope.get("route"), "path", "other")  # the pattern: paths as they came are without bound
            self._requests.labels(scope["method"], route, status).inc()
            self._seconds.labels(scope["method"], route).observe(time.perf_counter() - started)


@router.get("/metrics", summary="Figures for Prometheus")
async def metrics(request: Request, context: ContextOf) -> Response:
    """Every loaded model's figures under a `model` label, then those of HTTP."""
    models = context.manager.loaded()
    answers = await asyncio.gather(*(_stats(model) for model in models))
    known = [(model.engine.spec.name, stats) for model, stats in zip(models, answers, strict=True) if stats]
    text = "\n".join(render(known)) + "\n" if known else ""
    return Response(text.encode() + generate_latest(request.app.state.registry), media_type="text/plain; version=0.0.4")


async def _stats(model: LoadedModel) -> Stats | None:
    try:
        return await asyncio.wait_for(model.engine.stats(), ANSWER_WITHIN)
    except (RequestError, TimeoutError):
        return None  # it is ending, or in the middle of a very long step


def render(models: list[tuple[str, Stats]]) -> Iterator[str]:
    """The lines for all models' figures: Prometheus wants all samples of a metric together, under its type."""
    families: dict[tuple[str, str], list[str]] = defaultdict(list)
    for model, stats in models:
        label = f'model="{_escape(model)}"'
        for kind, values in (("counter", stats.counters), ("gauge", stats.gauges)):
            for key, value in values.items():
                name, labels = _split(key)
                families[name, kind].append(f"{name}{{{_join(label, labels)}}} {value}")
        for key, histogram in stats.histograms.items():
            name, labels = _split(key)
            common = _join(label, labels)
            samples = families[name, "histogram"]
            for bound, count in zip((*histogram.bounds, "+Inf"), (*histogram.counts, histogram.count), strict=False):
                samples.append(f'{name}_bucket{{{common},le="{bound}"}} {count}')
            samples += [f"{name}_sum{{{common}}} {histogram.total}", f"{name}_count{{{common}}} {histogram.count}"]
    for (name, kind), samples in families.items():
        yield f"# TYPE {name} {kind}"
        yield from samples


def _split(key: str) -> tuple[str, str]:
    name, _, labels = key.partition("{")
    return f"brim_{name}", labels.removesuffix("}")


def _join(*labels: str) -> str:
    return ",".join(label for label in labels if label)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
