"""POST /api/chat: the assistant's next message."""

import time
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from msgspec import Struct
from pydantic import Field
from starlette.responses import Response

from server.api.context import Context, ContextOf
from server.api.ollama.conversation import ChatMessage, OfferedTool, to_messages
from server.api.ollama.occupancy import load_or_unload
from server.api.ollama.options import GenerationRequest
from server.api.ollama.output import Answer, Answering, Said, ToolCall
from server.api.ollama.responding import respond
from server.api.ollama.thinking import thinking
from server.api.ollama.wire import JsonRoute, json_response, timestamp
from server.api.openai.chat_request import MOST_MESSAGES
from server.api.openai.chat_tools import MOST_TOOLS
from server.chat.answer import chat_deltas
from server.chat.media import Shown
from server.chat.task import ChatTask
from server.models.loading import LoadedModel

router = APIRouter(prefix="/api", tags=["Ollama"], route_class=JsonRoute)


class ChatRequest(GenerationRequest):
    """A conversation to be answered. Without messages, the model is loaded, or unloaded with a keep_alive of 0."""

    messages: Annotated[list[ChatMessage], Field(max_length=MOST_MESSAGES)] = Field(default_factory=list[ChatMessage])
    tools: Annotated[list[OfferedTool], Field(max_length=MOST_TOOLS)] | None = None

    def task(self, model: LoadedModel, partition: str) -> ChatTask:
        """What the request asks of the model.

        Raises:
            RequestError: it asks for what this model cannot do.
        """
        thinks, variables = thinking(model, self.think)
        shown = Shown()
        return ChatTask(
            messages=to_messages(self.messages, shown),
            shown=shown,
            tools=tuple(tool.tool() for tool in self.tools or ()),
            answer=self.grammar,
            thinking=thinks,
            variables=variables,
            generate=self.options.generate("", model, partition, self.alternatives),
        )


class AssistantMessage(Struct, omit_defaults=True):
    """The assistant's turn, or what one step added to it."""

    role: str
    content: str
    thinking: str | None = None
    tool_calls: list[ToolCall] | None = None


class ChatResponse(Answer):
    """The answer, or a part of it."""

    message: AssistantMessage


@router.post("/chat", summary="Answer a conversation")
async def chat(body: ChatRequest, request: Request, context: ContextOf) -> Response:
    """Answer with the assistant's next message, as a stream of lines or whole."""
    if not body.messages:
        reason = await load_or_unload(body.model, body.keep_alive, context)
        answer = _response(Said(), model=body.model, created_at=timestamp(), done=True, done_reason=reason)
        return json_response(answer)
    return await respond(request, partial(_begin, body, context), stream=body.stream)


async def _begin(body: ChatRequest, context: Context) -> Answering:
    started = time.perf_counter()
    model = await context.model(body.model, keep_alive=body.keep_alive)
    loaded = time.perf_counter()
    prepared = await context.prepare(model, body.task(model, context.partition))
    context.log_prompt(model.name, prepared.generate)
    return Answering(body.model, _response, chat_deltas(model.engine, prepared), started, loaded)


def _response(said: Said, **fields: Any) -> ChatResponse:
    message = AssistantMessage("assistant", said.content, said.thinking or None, said.calls or None)
    return ChatResponse(message=message, **fields)
