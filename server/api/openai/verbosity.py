"""`verbosity`: how long an answer should be, which few chat templates can tell their model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from server.errors import RequestError

if TYPE_CHECKING:
    from server.chat.renderer import Renderer

Verbosity = Literal["low", "medium", "high"]


def verbosity_variables(verbosity: Verbosity | None, template: Renderer, param: str) -> dict[str, str]:
    """The variable that tells a template.

    Args:
        verbosity: what is asked for; `medium` is how long answers are anyway, so no template needs to know it.
        param: the request's field.

    Raises:
        RequestError: the template does not know it.
    """
    if verbosity is None:
        return {}
    if "verbosity" in template.variables:
        return {"verbosity": verbosity}
    if verbosity == "medium":
        return {}
    raise RequestError(
        f"this model's chat template knows no {param}; say in the prompt how long the answer should be",
        code="model_not_supported",
        param=param,
    )
