"""The FastAPI application: who may ask, what is counted, and the protocols' routes."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from server import __version__
from server.api import admin, errors, health, llama_server, metrics, pages, rerank, unsupported
from server.api.anthropic import messages
from server.api.auth import LOCAL_ORIGIN, Guard
from server.api.limits import BodyLimit, Gate, Traffic
from server.api.ollama import routes as ollama
from server.api.openai import chat, completions, embeddings, models
from server.api.openai.responses import routes as responses
from server.api.rate_limit import HEADERS as RATE_HEADERS
from server.api.rate_limit import RateLimit
from server.api.reference import document
from server.api.request_log import HEADER as REQUEST_ID
from server.api.request_log import RequestLog
from server.api.streaming import ClientGoneError, PartsGoStraight
from server.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

    from server.models.manager import ModelManager
    from server.settings import Settings

CLIENT_GONE = 499
OWN_TEMPLATES = 2
"""How many requests that bring a chat template are prepared at once: each takes a process."""


def create_app(settings: Settings, manager: ModelManager, traffic: Traffic) -> FastAPI:
    """Put the application together.

    Args:
        settings: keys, limits and the like.
        manager: gives the engines; the application's end stops it.
        traffic: counts requests, and says whether new ones are still taken.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        yield
        await manager.stop()

    app = FastAPI(
        title="brim",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        summary="Local models, everyone's API.",
    )
    app.state.manager = manager
    app.state.settings = settings
    app.state.traffic = traffic
    app.state.own_templates = asyncio.Semaphore(OWN_TEMPLATES)
    app.state.started_at = int(time.time())
    app.state.registry = CollectorRegistry()
    errors.install(app)
    app.add_exception_handler(ClientGoneError, _on_client_gone)
    for module in (
        chat,
        completions,
        embeddings,
        rerank,
        llama_server,
        unsupported,
        responses,
        models,
        messages,
        ollama,
        health,
        metrics,
        admin,
        pages,
    ):
        app.include_router(module.router)
    document.install(app)
    _add_middleware(app, settings, traffic)
    return app


def _add_middleware(app: FastAPI, settings: Settings, traffic: Traffic) -> None:
    """Put the layers around the routes, from the innermost to the one that sees a request first."""
    app.add_middleware(errors.Unforeseen)
    app.add_middleware(
        BodyLimit,
        limit=settings.max_body,
        budget=settings.body_budget,
        timeout=settings.request_timeout,
        traffic=traffic,
    )
    app.add_middleware(Gate, traffic=traffic)
    if settings.rate_limit:
        app.add_middleware(RateLimit, rate=settings.rate_limit)
    app.add_middleware(
        Guard, keys=KeyRing(settings.api_key), hosts=settings.allowed_hosts, origins=settings.allowed_origins
    )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_origin_regex=LOCAL_ORIGIN,
        allow_private_network=True,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=[REQUEST_ID, "retry-after", *RATE_HEADERS],
    )
    app.add_middleware(metrics.HttpMetrics, registry=app.state.registry)
    app.add_middleware(RequestLog)
    app.add_middleware(PartsGoStraight)


async def _on_client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)
