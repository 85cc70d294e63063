"""All of Ollama's endpoints."""

from __future__ import annotations

from fastapi import APIRouter

from server.api.ollama import chat, create, embed, generate, managing, models, show

router = APIRouter()
for part in (chat, generate, embed, models, show, create, managing):
    router.include_router(part.router)
