"""How many continuations one request may ask for: each is a sequence of its own, and waits with the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from server.engine.request import Generate
    from server.models.loading import LoadedModel


def require_room(model: LoadedModel, requests: Iterable[Generate], param: str = "n") -> None:
    """Refuse what not even an idle engine could queue.

    Args:
        model: who is to continue.
        requests: one for each prompt of the request.
        param: the request's field for how many continuations each prompt gets.

    Raises:
        RequestError: they ask for more continuations than may wait.
    """
    asked = sum(max(request.n, request.best_of) for request in requests)
    most = model.engine.spec.queue_limit
    if asked > most:
        raise RequestError(
            f"the request asks for {asked} continuations in all, and at most {most} may wait; ask for fewer at once",
            code="too_many_choices",
            param=param,
        )
