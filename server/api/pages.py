"""The pages for people: the chat at /, and the API reference at /docs. Neither loads anything from elsewhere.

Ollama's clients ask at / whether there is a server, and get what its own says.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import HTMLResponse, PlainTextResponse, Response

WEB = Path(__file__).parents[1] / "web"
_SCRIPT = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)

router = APIRouter(include_in_schema=False)


def page(name: str) -> Response:
    """A page, which the browser lets run its own script and ask this server, and nothing else; no site may frame it."""
    text = (WEB / name).read_text("utf-8")
    digests = (hashlib.sha256(script.encode()).digest() for script in _SCRIPT.findall(text))
    scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
    return HTMLResponse(text, headers=headers)


@router.get("/")
@router.head("/")
async def chat(accept: Annotated[str, Header()] = "") -> Response:
    """The chat, for whoever reads HTML."""
    answer = page("index.html") if "text/html" in accept else PlainTextResponse("Ollama is running")
    answer.headers["Vary"] = "Accept"
    return answer


@router.get("/docs")
@router.head("/docs")
async def reference() -> Response:
    """The API reference, which the page draws from /openapi.json."""
    return page("reference.html")
