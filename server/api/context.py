"""What an endpoint works with: the models, the settings, and who is calling."""

import logging
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from server.engine.messages import Generate
from server.models.manager import ModelManager
from server.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """Passed to every endpoint.

    Attributes:
        manager: gives the running engine of a model.
        settings: what the server was told at its start.
        partition: the caller's cache partition.
        started_at: when the server started, in seconds since the epoch.
    """

    manager: ModelManager
    settings: Settings
    partition: str
    started_at: int

    def log_prompt(self, model: str, request: Generate) -> None:
        """Note a prompt in the log, if the user asked for that."""
        if self.settings.log_prompts:
            logger.info("prompt to %s: %s", model, request.prompt)


def _context(request: Request) -> Context:
    state = request.app.state
    return Context(state.manager, state.settings, request.state.partition, state.started_at)


ContextOf = Annotated[Context, Depends(_context)]
