"""The application in this process, with an empty store: for what is decided before any model is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from server.api.limits import Traffic
from server.app import create_app
from server.models.manager import ModelManager
from server.models.store import Store
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture
def make_client(tmp_path: Path, traffic: Traffic) -> Callable[..., httpx.AsyncClient]:
    """A client of an application with these settings."""

    def make(**settings: Any) -> httpx.AsyncClient:
        chosen = Settings(cache_ram=0, **settings)
        app = create_app(chosen, ModelManager(chosen, Store(tmp_path / "models")), traffic)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")

    return make


@pytest.fixture
def client(make_client: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    return make_client()
