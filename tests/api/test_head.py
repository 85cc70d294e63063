"""HEAD is answered wherever clients and monitors look whether there is a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import httpx


@pytest.mark.parametrize(
    "path", ["/", "/health", "/v1/health", "/docs", "/v1/models", "/models", "/api/tags", "/api/version"]
)
async def test_head_is_answered_as_get(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.head(path)).status_code == (await client.get(path)).status_code == 200
