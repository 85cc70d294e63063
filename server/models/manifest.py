"""What the store knows of a model: its name, which blobs it is made of, how it behaves, where it came from."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from server.errors import BrimError
from server.models.modelfile import Message
from server.models.parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Collection

SCHEMA_VERSION = 1
DEFAULT_TAG = "latest"

Digest = Annotated[str, Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")]
"""A blob's name: `sha256:` and the SHA-256 of its content."""

HUB = "hf.co/"
"""How the name of a model from the Hugging Face hub begins in the store, as in Ollama: hf.co/OWNER/REPOSITORY."""
HUB_SPELLINGS = ("hf:", HUB, "huggingface.co/", "https://hf.co/", "https://huggingface.co/")
"""How users may begin it."""

_NAME = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,79})(?::(?P<tag>[A-Za-z0-9][A-Za-z0-9._-]{0,79}))?")
_HUB_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9_-]{0,41}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})"
    r"(?::(?P<tag>[A-Za-z0-9][A-Za-z0-9._-]{0,95}))?"
)


def names_repository(text: str) -> bool:
    """Whether a model's name begins as those of the hub do."""
    return text.lower().startswith(HUB_SPELLINGS)


class ModelName(Struct, frozen=True):
    """A model's name and tag. The spelling is kept, but names that differ in nothing but case name the same model."""

    name: str
    tag: str = DEFAULT_TAG

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Read `name` or `name:tag`, or the name of a repository on the hub in any of its spellings.

        Raises:
            BrimError: it is not a name. Nothing that could lead out of the store's folder is one.
        """
        if names_repository(text):
            return cls._of_repository(text)
        match = _NAME.fullmatch(text)
        if not match:
            raise BrimError(
                f"{text!r} is no model name: it takes letters, digits, dots, dashes and underscores, beginning with a "
                "letter or digit, and perhaps a tag after a colon, as in `llama-3.2:q4`"
            )
        return cls(match["name"], match["tag"] or DEFAULT_TAG)

    @classmethod
    def _of_repository(cls, text: str) -> ModelName:
        prefix = next(prefix for prefix in HUB_SPELLINGS if text.lower().startswith(prefix))
        match = _HUB_NAME.fullmatch(text[len(prefix) :])
        if not match:
            raise BrimError(
                f"{text!r} is no model on the hub: write hf:OWNER/REPOSITORY, and perhaps which of its files or "
                "quantization types after a colon, as in `hf:bartowski/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M`"
            )
        return cls(HUB + match["name"], match["tag"] or DEFAULT_TAG)

    @property
    def repository(self) -> str | None:
        """OWNER/REPOSITORY of a model from the hub."""
        return self.name.removeprefix(HUB) if self.name.startswith(HUB) else None

    @property
    def file_name(self) -> str:
        """The manifest's file name. In lower case, so that it is the same file wherever file systems ignore case."""
        return f"{self.name}@{self.tag}.json".lower().replace("/", "+")

    @staticmethod
    def in_file_name(file_name: str) -> str:
        """The name and tag, in lower case, whose manifest has that file name."""
        return file_name.removesuffix(".json").replace("@", ":").replace("+", "/")

    def __str__(self) -> str:
        return self.name if self.tag == DEFAULT_TAG else f"{self.name}:{self.tag}"


def meant(name: str, names: Collection[str]) -> str | None:
    """The one of some models' names that a request means: letter for letter, or else but for case and `:latest`."""
    if name in names:
        return name
    wanted = _comparable(name)
    return next((one for one in names if _comparable(one) == wanted), None)


def _comparable(name: str) -> str:
    """A name as all others of the same model are written too. Files that are served may have any name."""
    name = name.lower()
    try:
        return str(ModelName.parse(name))
    except BrimError:
        return name.removesuffix(f":{DEFAULT_TAG}")


class Blob(Struct, frozen=True, kw_only=True):
    """A file in the store, and its size in bytes."""

    digest: Digest
    size: Annotated[int, Meta(ge=0)]


class Details(Struct, frozen=True, kw_only=True):
    """What a GGUF file says of itself. `parameters` counts weights, `context_length` is in tokens."""

    architecture: str
    parameters: int
    quantization: str
    context_length: int


class Model(Blob, frozen=True, kw_only=True):
    """A model's GGUF file. `made_from` is a hash of all that went into it: the same again gives the same file."""

    details: Details
    made_from: str


class StoredAdapter(Blob, frozen=True, kw_only=True):
    """A LoRA adapter's GGUF file, and how strongly it is applied."""

    scale: float = 1.0


class Manifest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model in the store.

    Attributes:
        name: `name`, or `name:tag` where the tag is not `latest`.
        model: its GGUF file.
        source: what it was made from, for people: a folder, a file or a model's name.
        created: when, in UTC.
        parameters: defaults for requests, and how it is loaded.
        system: the system prompt for chats that bring none; empty means none.
        template: the Jinja chat template in place of the model's own.
        messages: what every chat begins with.
        adapters: LoRA adapters to apply.
        draft: the model that proposes tokens, if there is one.
        projector: what reads images and sounds, if it has one.
        licenses: license texts.
        bundled: whether brim made it by itself, from the demo checkpoint it comes with.
        schema: version of this form.
    """

    schema: int
    name: str
    model: Model
    source: str
    created: datetime
    parameters: Parameters = Parameters()
    system: str | None = None
    template: str | None = None
    messages: tuple[Message, ...] = ()
    adapters: tuple[StoredAdapter, ...] = ()
    draft: Model | None = None
    projector: Model | None = None
    licenses: tuple[str, ...] = ()
    bundled: bool = False

    @property
    def digest(self) -> str:
        """The digest of the model's GGUF file."""
        return self.model.digest

    @property
    def details(self) -> Details:
        """What the model's GGUF file says of itself."""
        return self.model.details

    @property
    def models(self) -> tuple[Model, ...]:
        """The model, and its draft model and its projector if there are any."""
        return tuple(model for model in (self.model, self.draft, self.projector) if model)

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Every file it is made of."""
        return (*self.models, *self.adapters)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(blob.size for blob in self.blobs)


def encode(manifest: Manifest) -> bytes:
    """A manifest as JSON, indented for people."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes) -> Manifest:
    """Read a manifest. Raises ValueError, whose text says what is wrong with it."""
    schema = msgspec.json.decode(data, type=_Versioned).schema
    if schema > SCHEMA_VERSION:
        raise ValueError(f"it has version {schema} and was written by a newer brim")
    return msgspec.json.decode(data, type=Manifest)


class _Versioned(Struct):
    schema: int
