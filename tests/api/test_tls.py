"""HTTPS by certificate files, and how files that will not do are refused."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from server.commands.client import ask, connect
from server.errors import BrimError
from server.serving import tls_context
from server.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartServer


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIM_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write_pair(folder: Path, authority: trustme.CA, name: str = "localhost") -> tuple[Path, Path]:
    issued = authority.issue_cert(name, "127.0.0.1")
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


def test_a_server_with_a_certificate_speaks_https_and_brim_itself_trusts_it(
    start_server: StartServer, demo_gguf: Path, tmp_path: Path, authority: trustme.CA
) -> None:
    certificate, key = write_pair(tmp_path, authority)
    server = start_server(demo_gguf, "--tls-cert", certificate, "--tls-key", key, ready=False)
    url = server.url.replace("http:", "https:")
    trusting = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    with httpx.Client(verify=trusting, trust_env=False) as client:
        deadline = time.monotonic() + 240
        while True:
            assert time.monotonic() < deadline
            try:
                if client.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        answer = client.post(
            f"{url}/v1/completions", json={"prompt": "Hi", "max_tokens": 2, "temperature": 0}, timeout=60
        )
        assert answer.json()["usage"]["completion_tokens"] == 2
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}/health", trust_env=False)
    assert f"{url}/v1" in server.log.read_text()


async def test_commands_trust_just_the_servers_own_certificate(
    start_server: StartServer, demo_gguf: Path, tmp_path: Path, authority: trustme.CA
) -> None:
    certificate, key = write_pair(tmp_path, authority, "elsewhere.example")
    stranger, _ = write_pair(tmp_path, authority)
    server = start_server(demo_gguf, "--tls-cert", certificate, "--tls-key", key, ready=False)
    settings = Settings(tls_cert=certificate, tls_key=key, port=int(server.url.rsplit(":", 1)[1]))
    deadline = time.monotonic() + 240
    while True:
        assert time.monotonic() < deadline
        try:
            async with connect(settings) as client:
                assert "models" in await ask(client, "GET", "/admin/models")
                break
        except BrimError:
            time.sleep(0.1)
    async with connect(settings.model_copy(update={"tls_cert": stranger})) as client:
        with pytest.raises(BrimError):
            await ask(client, "GET", "/admin/models")


def encrypt(key: Path) -> None:
    private = load_pem_private_key(key.read_bytes(), None)
    locked = BestAvailableEncryption(b"secret")
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))


def test_files_that_will_not_do_are_one_clear_sentence(tmp_path: Path, authority: trustme.CA) -> None:
    certificate, key = write_pair(tmp_path, authority)
    _, other = write_pair(tmp_path, authority, "other.example")
    absent, text = tmp_path / "absent", tmp_path / "text"
    text.write_text("no PEM")
    for wrong_certificate, wrong_key, words in (
        (absent, key, "absent cannot be read: No such file"),
        (certificate, absent, "absent cannot be read: No such file"),
        (text, key, "not a sound pair of PEM files"),
        (certificate, text, "not a sound pair of PEM files"),
        (certificate, other, "do not belong together"),
    ):
        with pytest.raises(BrimError, match=words):
            tls_context(Settings(tls_cert=wrong_certificate, tls_key=wrong_key))
    encrypt(key)
    with pytest.raises(BrimError, match="is encrypted; give one without a password"):
        tls_context(Settings(tls_cert=certificate, tls_key=key))


@pytest.mark.parametrize("given", ["tls_cert", "tls_key"])
def test_one_of_the_two_files_is_not_enough(tmp_path: Path, given: str) -> None:
    with pytest.raises(BrimError, match="both --tls-cert and --tls-key"):
        Settings.load(**{given: tmp_path / "file"})
