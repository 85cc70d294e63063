"""All of Ollama's endpoints."""

from __future__ import annotations

from fastapi import APIRouter

from server.api.ollama import blobs, chat, create, embed, generate, managing, models, show

router = APIRouter()
for part in (chat, generate, embed, models, show, blobs, create, managing):
    router.include_router(part.router)
