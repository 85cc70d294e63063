"""`verbosity` on real servers: told to a template that knows it, refused by name where none does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from converter.gguf_format import Field, encode_header
from converter.gguf_info import read_gguf_info

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import RunningServer, StartServer

TEMPLATE = (
    "{%- if verbosity is defined -%}Verbosity: {{ verbosity }}. {% endif -%}"
    "{%- for message in messages -%}{{ message.content }}{%- endfor -%}"
)
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
RESPONSE: dict[str, Any] = {"input": "Hi", "max_output_tokens": 2}


@pytest.fixture(scope="module")
def knowing_server(
    start_server: StartServer, demo_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    """A server with the demo model under a template that knows verbosity."""
    info = read_gguf_info(demo_gguf)
    header = encode_header({**info.fields, "tokenizer.chat_template": Field.string(TEMPLATE)}, info.tensors)
    path = tmp_path_factory.mktemp("gguf") / "knowing.gguf"
    path.write_bytes(header + demo_gguf.read_bytes()[info.data_start :])
    return start_server(path, "--ctx", "256", "--parallel", "1")


def test_a_template_that_knows_verbosity_is_told(knowing_server: RunningServer) -> None:
    for given, prompt in (({"verbosity": "low"}, "Verbosity: low. Hi"), ({}, "Hi")):
        assert knowing_server.post("/apply-template", CHAT | given).json()["prompt"] == prompt
    assert knowing_server.post("/v1/chat/completions", CHAT | {"verbosity": "high"}).status_code == 200
    assert knowing_server.post("/v1/responses", RESPONSE | {"text": {"verbosity": "high"}}).status_code == 200


def test_elsewhere_only_the_usual_is_taken(demo_server: RunningServer) -> None:
    for path, body, param in (("chat/completions", CHAT, "verbosity"), ("responses", RESPONSE, "text.verbosity")):
        for value, status in (("low", 400), ("high", 400), ("medium", 200), ("terse", 400)):
            given = {"verbosity": value} if param == "verbosity" else {"text": {"verbosity": value}}
            reply = demo_server.post(f"/v1/{path}", body | given)
            assert reply.status_code == status, reply.text
            if status == 400:
                assert reply.json()["error"]["param"] == param
