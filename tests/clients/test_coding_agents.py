"""What coding agents send, in their shapes and with words of our own: Claude Code 2.1 and Codex 0.169.

The agents' own prompts and tools take tens of thousands of tokens; these stand for them in a model of 2,048.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.conftest import RunningServer, StartServer

EPHEMERAL = {"type": "ephemeral"}
HEADERS = {
    "authorization": "Bearer none",
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,mid-conversation-system-2026-04-07",
    "anthropic-dangerous-direct-browser-access": "true",
    "x-app": "cli",
    "x-stainless-lang": "js",
    "x-claude-code-session-id": "5f0c",
}
CLAUDE_TOOLS: list[dict[str, Any]] = [
    {
        "name": "Note",
        "description": "Notes a task.",
        "input_schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "subject": {"type": "string", "description": "What it is about", "maxLength": 8},
                "metadata": {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {}},
                "status": {
                    "anyOf": [{"type": "string", "enum": ["open", "done"]}, {"type": "string", "const": "deleted"}]
                },
            },
            "required": ["subject"],
            "additionalProperties": False,
        },
    },
    {
        "name": "mcp__files__find",
        "description": "Finds a file.",
        "input_schema": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^(?!-)"},
                "limit": {"type": "integer", "exclusiveMinimum": 0, "maximum": 9007199254740991},
                "where": {"oneOf": [{"type": "string"}, {"type": "string", "format": "iri"}]},
            },
            "anyOf": [{"required": ["name"]}, {"required": ["where"]}],
        },
    },
]
CLAUDE: dict[str, Any] = {
    "model": "demo",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>It is Sunday.</system-reminder>"},
                {"type": "text", "text": "Say hello", "cache_control": EPHEMERAL},
            ],
        },
        {"role": "system", "content": "There are two tools."},
    ],
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=1;"},
        {"type": "text", "text": "You help with code.", "cache_control": EPHEMERAL},
        {"type": "text", "text": "\nBe brief.", "cache_control": EPHEMERAL},
    ],
    "tools": CLAUDE_TOOLS,
    "metadata": {"user_id": '{"device_id":"d","session_id":"s"}'},
    "max_tokens": 32_000,
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "stream": True,
}
CODEX_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": "exec_command",
        "description": "Runs a command.",
        "strict": False,
        "parameters": {
            "type": "object",
            "properties": {"cmd": {"type": "string"}, "tty": {"type": "boolean"}},
            "required": ["cmd"],
            "additionalProperties": False,
        },
    },
    {
        "type": "namespace",
        "name": "agents",
        "description": "Other agents.",
        "tools": [
            {
                "type": "function",
                "name": "close",
                "description": "Closes one.",
                "strict": False,
                "parameters": {
                    "type": "object",
                    "properties": {"target": {"type": "string", "maxLength": 8}},
                    "required": ["target"],
                    "additionalProperties": False,
                },
            }
        ],
    },
    {"type": "web_search", "external_web_access": False},
]
CODEX: dict[str, Any] = {
    "model": "demo",
    "stream": True,
    "input": [
        {
            "type": "message",
            "id": f"msg_{number}",
            "role": role,
            "content": [{"type": "input_text", "text": text} for text in texts],
        }
        for number, (role, texts) in enumerate(
            [
                ("developer", ["You help with code."]),
                ("developer", ["<skills>None.</skills>", "<permissions>All.</permissions>"]),
                ("user", ["<environment>A folder.</environment>"]),
                ("user", ["Say hello"]),
            ]
        )
    ],
    "tools": CODEX_TOOLS,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "01a2",
    "client_metadata": {"session_id": "01a2", "turn_id": "01a3"},
}


@pytest.fixture(scope="module")
def agent_server(start_server: StartServer, demo_gguf: Path) -> RunningServer:
    """A server whose context holds an agent's request."""
    return start_server(demo_gguf, "--ctx", "2048", "--parallel", "2")


def stream(server: RunningServer, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The data of a stream's events, read to its end."""
    with httpx.stream("POST", f"{server.url}{path}", json=body, headers=HEADERS, timeout=120) as reply:
        text = reply.read().decode()
    assert reply.status_code == 200, text
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def said(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content blocks that a stream of Anthropic's tells of, as a client sends them back."""
    blocks: list[dict[str, Any]] = []
    arguments = ""
    for event in events:
        match event:
            case {"type": "content_block_start", "content_block": block}:
                blocks.append(dict(block))
                arguments = ""
            case {"delta": {"type": "text_delta", "text": text}}:
                blocks[-1]["text"] += text
            case {"delta": {"type": "input_json_delta", "partial_json": text}}:
                arguments += text
                blocks[-1]["input"] = arguments
            case _:
                pass
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block["input"] or "{}")
    return blocks


def test_claude_code_looks_for_the_server(agent_server: RunningServer) -> None:
    assert httpx.head(agent_server.url, timeout=60).status_code == 200


def test_claude_code_asks_and_reads_to_the_end(agent_server: RunningServer) -> None:
    events = stream(agent_server, "/v1/messages?beta=true", CLAUDE)
    assert events[0]["type"] == "message_start"
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    assert said(events)


def test_claude_code_counts_tools_alone(agent_server: RunningServer) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "x"}]}
    counts: list[int] = []
    for tools in ([], CLAUDE_TOOLS):
        reply = agent_server.post("/v1/messages/count_tokens?beta=true", {**body, "tools": tools}, HEADERS)
        counts.append(reply.json()["input_tokens"])
    assert 0 < counts[0] < counts[1]


def test_claude_codes_tools_are_called_and_their_results_taken(agent_server: RunningServer) -> None:
    asked = CLAUDE["messages"]
    forced = {**CLAUDE, "max_tokens": 200, "tool_choice": {"type": "tool", "name": "Note"}, "temperature": 0}
    blocks = said(stream(agent_server, "/v1/messages?beta=true", forced))
    (call,) = [block for block in blocks if block["type"] == "tool_use"]
    assert isinstance(call["input"]["subject"], str)
    result = {
        "type": "tool_result",
        "tool_use_id": call["id"],
        "content": [{"type": "text", "text": "noted", "citations": None}],
        "is_error": False,
        "cache_control": EPHEMERAL,
    }
    turns = [
        {"role": "assistant", "content": blocks},
        {"role": "user", "content": [result]},
        {"role": "system", "content": "Ten tokens are left."},
    ]
    after = stream(agent_server, "/v1/messages?beta=true", {**CLAUDE, "messages": [*asked, *turns], "max_tokens": 8})
    assert after[-1]["type"] == "message_stop"


def test_codex_asks_and_reads_to_the_end(agent_server: RunningServer) -> None:
    events = stream(agent_server, "/v1/responses", CODEX)
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["tools"][1]["tools"][0]["name"] == "close"


@pytest.mark.parametrize("store", [False, True])
def test_a_function_of_codexs_namespace_is_called_and_its_result_taken(
    agent_server: RunningServer, *, store: bool
) -> None:
    forced = {
        **CODEX,
        "tools": CODEX_TOOLS[1:],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
        "store": store,
    }
    events = stream(agent_server, "/v1/responses", forced)
    done = events[-1]["response"]
    call: dict[str, Any] = next(item for item in done["output"] if item["type"] == "function_call")
    assert (call["namespace"], call["name"]) == ("agents", "close")
    assert isinstance(json.loads(call["arguments"])["target"], str)
    assert call in [event.get("item") for event in events]
    result = {"type": "function_call_output", "id": "fco_1", "call_id": call["call_id"], "output": "closed"}
    on: dict[str, Any] = {"input": [*CODEX["input"], call, result]}
    if store:
        on = {"input": [result], "previous_response_id": done["id"]}
    after = stream(agent_server, "/v1/responses", {**CODEX, **on, "max_output_tokens": 8})
    assert after[-1]["type"] in ("response.completed", "response.incomplete")


def test_codex_asks_for_an_answer_in_a_form(agent_server: RunningServer) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}},
        "required": ["name"],
        "additionalProperties": False,
    }
    form = {"format": {"type": "json_schema", "name": "codex_output_schema", "schema": schema, "strict": True}}
    body: dict[str, Any] = {**CODEX, "tools": [], "parallel_tool_calls": False, "text": form}
    done = stream(agent_server, "/v1/responses", body)[-1]["response"]
    (message,) = [item for item in done["output"] if item["type"] == "message"]
    assert set(json.loads(message["content"][0]["text"])) == {"name"}
