"""The multimodal projector of a model: which file is one, what it lets the model take in, which lies beside a model.

llama.cpp calls such files `mmproj` and their architecture `clip`, whatever encoder they hold (tools/mtmd/clip.cpp).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converter.errors import ConversionError
from converter.gguf_info import read_gguf_info
from server.errors import BrimError

if TYPE_CHECKING:
    from pathlib import Path

    from converter.gguf_info import GGUFInfo

logger = logging.getLogger(__name__)

ARCHITECTURE = "clip"
MARK = "mmproj"
"""What the names of projectors hold."""
NO_PROJECTOR = "none"
"""What is given in place of a file where a model is to have no projector."""


@dataclass(frozen=True)
class Senses:
    """What a model can take in besides text."""

    vision: bool
    hearing: bool

    def __str__(self) -> str:
        return " and ".join(word for word, has in (("vision", self.vision), ("hearing", self.hearing)) if has)


def is_named_as_projector(name: str) -> bool:
    """Whether a GGUF file's name, without its folder, tells that it is a projector."""
    return MARK in name.lower() and name.lower().endswith(".gguf")


def senses_of(info: GGUFInfo) -> Senses:
    """What a projector's metadata says that it reads."""
    return Senses(bool(info.get("clip.has_vision_encoder")), bool(info.get("clip.has_audio_encoder")))


def read_projector(path: Path, name: object = None) -> GGUFInfo:
    """The header of a projector.

    Args:
        path: its file.
        name: what error messages call it, if not by its path.

    Raises:
        BrimError: it is not there, no sound GGUF file, or something else than a projector for images or sounds.
    """
    name = name or path
    if not path.is_file():
        raise BrimError(f"there is no projector {name}")
    try:
        info = read_gguf_info(path)
    except ConversionError as error:
        raise BrimError(f"the projector {name} cannot be read: {error}") from error
    if info.architecture != ARCHITECTURE:
        what = f"a {info.architecture} model" if info.architecture else "no model at all"
        raise BrimError(f"{name} is {what}, not a multimodal projector (mmproj) as --projector and PROJECTOR take")
    if not str(senses_of(info)):
        raise BrimError(f"the projector {name} reads neither images nor sounds")
    return info


def refuse_projector(architecture: str, name: object) -> None:
    """Raises BrimError where a projector is given in place of a language model."""
    if architecture == ARCHITECTURE:
        raise BrimError(
            f"{name} is a multimodal projector, not a language model; name the model, and this file as its projector"
        )


def beside(model: Path) -> Path | None:
    """The projector that lies in the folder of a model's file, if it is the only one; the log tells what was found.

    Raises:
        BrimError: it is no sound projector.
    """
    found = sorted(path for path in model.parent.glob("*") if is_named_as_projector(path.name) and path.is_file())
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        logger.warning("%s takes text alone: beside it lie %s; choose one with --projector", model.name, names)
    if len(found) != 1:
        return None
    try:
        senses = senses_of(read_projector(found[0]))
    except BrimError as error:
        raise BrimError(f"{error}; it lies beside {model.name}, and --projector none leaves it out") from error
    logger.info(
        "%s gets %s by %s, which lies beside it; --projector none leaves it out", model.name, senses, found[0].name
    )
    return found[0].resolve()
