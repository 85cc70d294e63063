"""Chat formats, one module each, and the choice of the one that a model's template is written for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.chat.formats.apertus import Apertus
from server.chat.formats.apriel import Apriel
from server.chat.formats.command_r import CommandR, CommandR7B
from server.chat.formats.deepseek import DeepSeekR1, DeepSeekV31
from server.chat.formats.deepseek_dsml import DeepSeekV4, DeepSeekV32
from server.chat.formats.function_gemma import FunctionGemma, Gemma4
from server.chat.formats.functionary import Functionary31, Functionary32
from server.chat.formats.gemma import Gemma
from server.chat.formats.gigachat import GigaChat
from server.chat.formats.glm import Glm
from server.chat.formats.granite import Granite
from server.chat.formats.harmony import Harmony
from server.chat.formats.hermes import Hermes
from server.chat.formats.hunyuan import Hy3
from server.chat.formats.kimi import KimiK2
from server.chat.formats.lfm import Lfm
from server.chat.formats.llama import Llama
from server.chat.formats.minicpm import MiniCpm
from server.chat.formats.minimax import MiniMaxM1, MiniMaxM2
from server.chat.formats.mistral import Mistral, MistralNemo
from server.chat.formats.nemotron import Nemotron
from server.chat.formats.phi import Phi
from server.chat.formats.plain import Plain
from server.chat.formats.pythonic import Pythonic
from server.chat.formats.qwen3_coder import Qwen3Coder
from server.chat.formats.seed_oss import SeedOss
from server.chat.formats.solar import SolarOpen
from server.errors import BrimError

if TYPE_CHECKING:
    from server.chat.formats.base import ChatFormat

FALLBACK: ChatFormat = Hermes()
"""For templates of no known format: most models write it when they are told how."""

FORMATS: tuple[ChatFormat, ...] = (
    *(
        Harmony(),
        DeepSeekV32(),
        DeepSeekV4(),
        DeepSeekR1(),
        DeepSeekV31(),
        Mistral(),
        MistralNemo(),
        CommandR7B(),
        CommandR(),
    ),
    *(Functionary32(), Functionary31(), Pythonic(), Llama(), Granite(), Phi(), Gemma4(), FunctionGemma(), Gemma()),
    *(KimiK2(), MiniMaxM1(), MiniMaxM2(), SeedOss(), Hy3(), SolarOpen()),
    *(Lfm(), Nemotron(), Apertus(), Apriel(), MiniCpm(), GigaChat()),
    *(Qwen3Coder(), Glm(), FALLBACK, Plain()),
)
"""All formats. The first that recognises a template is its format."""


def detect(template: str) -> ChatFormat:
    """The format that a chat template's source is written for, or the fallback where it shows none."""
    return next((known for known in FORMATS if known.recognises(template)), FALLBACK)


def named(name: str) -> ChatFormat:
    """The format of that name. Raises BrimError, which lists the names there are."""
    for known in FORMATS:
        if known.name == name:
            return known
    raise BrimError(f"there is no chat format {name!r}; there are {', '.join(known.name for known in FORMATS)}")
