"""What other servers have and brim has not: refused by one table, in one sentence that says what to do instead."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.errors import RequestError

UNSUPPORTED = {
    "/v1/audio": "brim neither hears nor speaks",
    "/v1/images": "brim makes no images",
    "/v1/videos": "brim makes no videos",
    "/v1/moderations": "brim has no moderation: ask a chat model that was trained to judge texts",
    "/v1/files": "brim keeps no files: send their content with the request",
    "/v1/uploads": "brim keeps no files: send their content with the request",
    "/v1/batches": "brim runs no batches: send the requests side by side, and they share the model's batches",
    "/v1/fine_tuning": "brim does not train models",
    "/v1/evals": "brim runs no evaluations",
    "/v1/vector_stores": "brim keeps no vectors: get them from /v1/embeddings and store them where you like",
    "/v1/assistants": "brim has no assistants: use /v1/chat/completions or /v1/responses",
    "/v1/threads": "brim has no threads: use /v1/chat/completions or /v1/responses",
    "/v1/conversations": "brim keeps no conversations: use previous_response_id of /v1/responses",
    "/v1/containers": "brim runs no code",
    "/v1/realtime": "brim has no realtime sessions: use /v1/chat/completions with stream",
    "/lora-adapters": "adapters are chosen when a model is loaded: by ADAPTER in its Modelfile",
}

router = APIRouter(include_in_schema=False)


async def _refuse(request: Request) -> Response:
    path = request.url.path
    reason = next(reason for beginning, reason in UNSUPPORTED.items() if path.startswith(beginning))
    raise RequestError(reason, status=501, code="not_supported")


for _beginning in UNSUPPORTED:
    for _path in (_beginning, _beginning + "/{rest:path}"):
        router.add_api_route(_path, _refuse, methods=["GET", "POST", "DELETE", "PUT", "PATCH"])
