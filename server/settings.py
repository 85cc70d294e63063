"""What can be configured: command-line flags over BRIM_* variables over brim.toml over these defaults."""

from __future__ import annotations

import ipaddress
import math
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import platformdirs
from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from server.durations import Duration
from server.errors import BrimError
from server.keys import hash_entry, read_key_file
from server.rates import RateSetting
from server.sizes import Size

LARGEST_DEFAULT_DISK_CACHE = 16 * 1024**3
FREE_DISK_WORTH_USING = 10 * 1000**3
"""Below so many free bytes, nothing is cached on disk unless asked for."""


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _layers(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
GpuLayers = Annotated[Literal["auto", "all"] | Annotated[int, Field(ge=0)], BeforeValidator(_layers)]


def _config_files() -> list[Path]:
    return [Path(platformdirs.user_config_dir("brim")) / "brim.toml", Path("brim.toml")]


def _in_home(name: str) -> Path:
    from server.models.store import home

    return home() / name


def _default_disk_cache() -> int:
    free = shutil.disk_usage(next(folder for folder in _in_home("kv").parents if folder.exists())).free
    return min(free // 10, LARGEST_DEFAULT_DISK_CACHE) if free >= FREE_DISK_WORTH_USING else 0


class Settings(BaseSettings):
    """Everything `brim serve` can be told. Sizes are in bytes, lengths in tokens, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="BRIM_", extra="forbid", frozen=True)

    models: CommaList = ()
    """Models to load at the start: names in the store or paths of GGUF files."""
    any_model: bool = False
    """Answer requests that name a model there is not with the first of `models`."""
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    ctx: int = Field(default=0, ge=0)
    """Context length of one request; 0 takes the model's own, as far as memory allows."""
    parallel: int = Field(default=8, ge=1, le=256)
    gpu_layers: GpuLayers = "auto"
    vram_budget: Size | None = None
    kv_type: Literal["f16", "q8_0", "q4_0", "f32"] = "f16"
    cache_ram: Size | None = None
    """Of each model; None takes a quarter of what it leaves of the memory, up to 8 GiB."""
    cache_disk: Size = Field(default_factory=_default_disk_cache)
    rpc: CommaList = ()
    api_key: CommaList = Field(default=(), repr=False)
    """Keys, or their hashes in the form sha256:HEX."""
    api_key_file: Path | None = None
    """A file of further keys, one a line."""
    no_key: bool = False
    """Allow listening beyond this machine without a key."""
    allowed_hosts: CommaList = ()
    """Host names, beside this machine's own, under which clients may address the server."""
    allowed_origins: CommaList = ()
    """Origins of web pages, beside local ones, that may call the server."""
    media_hosts: CommaList = ()
    """Hosts from which images that requests name by URL may be fetched."""
    tls_cert: Path | None = None
    """PEM file of the certificate, and of those that lead to its authority: the server then speaks HTTPS."""
    tls_key: Path | None = None
    """PEM file of the certificate's private key."""
    draft: str | None = None
    projector: str | None = None
    """GGUF file of the model's multimodal projector, or `none`; None takes what the model brings or lies beside it."""
    lookup: bool = True
    """Speculate by prompt lookup while it pays."""
    kernels: bool = True
    """Multiply quantized weights on the CPU by brim's own kernels, instead of llama.cpp's."""
    kv_unified: bool | None = None
    """One pool of KV cells for all requests, or a buffer for each; None leaves it to brim."""
    threads: int = Field(default=0, ge=0)
    log_prompts: bool = False
    log_json: bool = False
    debug: bool = False
    grace: float = Field(default=30.0, ge=0)
    """How long running requests may take to end after SIGTERM."""
    keep_alive: Duration = 300.0
    """How long a model that a request named stays loaded after its last request."""
    max_models: int | None = Field(default=None, ge=1)
    """How many models may be loaded at once; by default three, beside those named at the start."""
    responses_file: Path = Field(default_factory=lambda: _in_home("responses.db"))
    """Where responses of OpenAI's Responses protocol are kept, unless a request says not to."""
    responses_days: float = Field(default=30.0, gt=0)
    """How many days a response is kept after it was made or last gone on from."""
    responses_max: Size = 256 * 1024**2
    """Largest sum of all kept responses; the longest unused ones make room."""
    max_body: Size = 16 * 1024**2
    """Largest request body."""
    max_upload: Size = 64 * 1024**3
    """Largest sum of the files that were uploaded and that no model has been made of."""
    body_budget: Size = 256 * 1024**2
    """Largest sum of the bodies of all requests being answered."""
    request_timeout: float = Field(default=60.0, gt=0)
    """How long a request may take to arrive, and how long a client may leave its answer unread."""
    max_time: Duration = Field(default=math.inf, gt=0)
    """Longest that the answer to a request may take, its wait included; a request may ask for less."""
    stream_interval: float = Field(default=0.03, ge=0, le=1)
    """Seconds within which the tokens of a stream are sent together, a few at most; 0 sends each by itself."""
    rate_limit: RateSetting | None = None
    """How often each API key, or each address where there are no keys, may ask."""
    max_connections: int = Field(default=512, ge=1)
    cache_dir: Path = Field(default_factory=lambda: _in_home("kv"))
    state_dir: Path = Field(default_factory=lambda: _in_home("state"))

    @field_validator("models", "rpc", "api_key", "allowed_hosts", "allowed_origins", "media_hosts", mode="after")
    @classmethod
    def _no_empty_entries(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("an entry is empty")
        return value

    @field_validator("api_key", mode="before")
    @classmethod
    def _split_every_entry(cls, value: Any) -> Any:
        """`--api-key A,B --api-key C` is three keys."""
        if not isinstance(value, tuple):
            return value
        given = cast("tuple[str, ...]", value)
        return ",".join(given) if all(given) else given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags first, then the environment, then brim.toml of this folder over the user's."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _config_files())

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """Read the settings; `flags` are those given on the command line, None where one was not.

        Raises:
            BrimError: a value is wrong (the message names it), or a brim.toml cannot be read.
        """
        try:
            settings = cls(**{name: value for name, value in flags.items() if value is not None})
        except ValidationError as error:
            raise BrimError(_explain(error)) from error
        except ValueError as error:  # what tomllib raises
            raise BrimError(f"brim.toml cannot be read: {error}") from error
        settings.require_key()
        settings.require_tls_pair()
        return settings

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def require_key(self) -> None:
        """Refuse to listen beyond this machine without a key. Raises BrimError."""
        if not (self.is_local or self.api_key or self.api_key_file or self.no_key):
            raise BrimError(
                f"listening on {self.host} lets other machines in: give --api-key KEY, or --no-key to allow anyone"
            )

    def require_tls_pair(self) -> None:
        """Refuse a certificate without its key, or the other way round. Raises BrimError."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise BrimError("TLS needs both --tls-cert and --tls-key")

    def with_hashed_keys(self) -> Self:
        """The same settings, with all keys, those of the key file too, as hashes only.

        Raises:
            BrimError: a key is malformed, or the key file cannot be read.
        """
        entries = [hash_entry(entry) for entry in self.api_key]
        if self.api_key_file:
            entries += read_key_file(self.api_key_file)
        return self.model_copy(update={"api_key": tuple(dict.fromkeys(entries)), "api_key_file": None})


def _explain(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False)
    name = str(faults[0]["loc"][0]) if faults[0]["loc"] else "settings"
    if faults[0]["type"] == "extra_forbidden":
        return f"brim.toml: there is no setting '{name}'"
    reasons = [fault["msg"].removeprefix("Value error, ") for fault in faults if fault["loc"][:1] == (name,)]
    given = "" if name == "api_key" else f" (given: {faults[0]['input']!r})"
    return f"{name.replace('_', '-')}: {', or '.join(dict.fromkeys(reasons))}{given}"
