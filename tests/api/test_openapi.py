"""The API reference tells of every endpoint: with examples that hold, and nothing that it needs from elsewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from server.api.limits import Traffic
from server.api.reference.document import ENTRIES, EVERYWHERE, operations
from server.app import create_app
from server.models.manager import ModelManager
from server.models.store import Store
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = Settings(cache_ram=0)
    store = Store(tmp_path_factory.mktemp("store"))
    app = create_app(settings, ModelManager(settings, store), Traffic())
    return app.openapi()


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything in the document that has a schema and examples, with words that say what it is."""
    for path, method, endpoint in operations(document):
        for media_type, content in endpoint.get("requestBody", {}).get("content", {}).items():
            yield f"{method} {path} takes {media_type}", content
        for status, answer in endpoint["responses"].items():
            for media_type, content in answer.get("content", {}).items():
                yield f"{method} {path} answers {status} {media_type}", content


def test_every_endpoint_has_an_entry_and_every_entry_an_endpoint(document: dict[str, Any]) -> None:
    assert {(method, path) for path, method, _ in operations(document)} == set(ENTRIES)


def test_every_endpoint_is_told_in_full(document: dict[str, Any]) -> None:
    for path, method, endpoint in operations(document):
        where = f"{method} {path}"
        assert endpoint["summary"], where
        assert endpoint["description"], where
        assert endpoint["tags"], where
        statuses = set(endpoint["responses"])
        assert {str(status) for status in EVERYWHERE} <= statuses, where
        assert "422" not in statuses, where
        for parameter in endpoint.get("parameters", ()):
            assert "example" in parameter or not parameter["required"], where


def test_second_paths_are_told(document: dict[str, Any]) -> None:
    told = {path: endpoint["description"] for path, _, endpoint in operations(document)}
    assert told["/v1/rerank"].endswith("Also at `POST /reranking`, `POST /rerank`, `POST /v1/reranking`.")
    assert told["/v1/chat/completions"].endswith("Also at `POST /chat/completions`.")
    assert told["/health"].endswith("Also at `HEAD /v1/health`, `HEAD /health`, `GET /v1/health`.")


def test_every_example_holds_to_its_schema(document: dict[str, Any]) -> None:
    seen = 0
    for where, content in bodies(document):
        examples = [content["example"]] if "example" in content else []
        examples += [example["value"] for example in content.get("examples", {}).values()]
        assert examples, where
        schema = {**content["schema"], "components": document["components"]}
        for example in examples:
            jsonschema.validate(example, schema, cls=jsonschema.Draft202012Validator)
            seen += 1
    assert seen > len(ENTRIES)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r"'#/components/schemas/([^']+)'", str(document)))
    assert names <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_load_nothing_from_elsewhere_and_run_only_their_own_script(
    client: httpx.AsyncClient, path: str
) -> None:
    page = await client.get(path, headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert policy.count("'sha256-") == page.text.count("<script") == 1
    assert not re.search(r"(src|href)=[\"'](https?:)?//", page.text)
    assert " onclick=" not in page.text


async def test_a_path_with_several_methods_tells_them_all(client: httpx.AsyncClient) -> None:
    answer = await client.put("/v1/responses/resp_1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET")
