"""llama-server's own protocol, beside OpenAI's: completion, infill, tokens, templates, embedding, props and slots."""

from fastapi import APIRouter

from server.api.llama_server import completion, embedding, props, vocabulary

router = APIRouter()
for _module in (completion, vocabulary, embedding, props):
    router.include_router(_module.router)
