"""The pages in a real browser: the chat answers, the reference lists the endpoints and asks them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import RunningServer

pytestmark = pytest.mark.slow

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WITHIN = 120_000
"""Milliseconds."""
QUESTION = "What is the capital of France?"


@pytest.fixture
def page() -> Iterator[Page]:
    """A page that fails its test where a script of it fails, or where anything is asked of another server."""
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(WITHIN)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("requestfailed", lambda request: faults.append(request.url))
        yield page
        browser.close()
    assert not faults


def test_a_question_gets_its_answer_and_the_figures_of_it(page: Page, demo_server: RunningServer) -> None:
    page.goto(demo_server.url)
    expect(page.get_by_label("Model")).to_have_value("demo", timeout=WITHIN)
    page.get_by_label("Message").fill(QUESTION)
    page.get_by_label("Message").press("Enter")
    answer = page.locator(".assistant:not(.busy)")
    expect(answer).to_contain_text("Paris", timeout=WITHIN)
    expect(answer.locator(".figures")).to_contain_text("tokens/s", timeout=WITHIN)
    expect(page.locator(".user")).to_have_text(QUESTION)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)


def test_what_a_person_or_a_model_writes_never_becomes_markup(page: Page, demo_server: RunningServer) -> None:
    page.goto(demo_server.url)
    page.get_by_label("Message").fill("<img src=x onerror=alert(1)> **<b>bold</b>**")
    page.get_by_label("Message").press("Enter")
    expect(page.locator(".assistant:not(.busy) .figures")).to_contain_text("tokens/s", timeout=WITHIN)
    expect(page.locator("main img, main b")).to_have_count(0)


def test_the_reference_lists_every_endpoint_and_asks_one(page: Page, demo_server: RunningServer) -> None:
    paths = demo_server.get("/openapi.json").json()["paths"]
    page.goto(f"{demo_server.url}/docs")
    expect(page.locator("article")).to_have_count(sum(map(len, paths.values())), timeout=WITHIN)
    tokenize = page.locator("article", has=page.get_by_role("heading", name="post/tokenize", exact=True))
    tokenize.get_by_role("button", name="Send").click()
    expect(tokenize.get_by_role("status")).to_contain_text("200", timeout=WITHIN)
    expect(tokenize.locator("pre").first).to_contain_text("tokens")


def test_the_reference_shows_a_stream_as_it_comes(page: Page, demo_server: RunningServer) -> None:
    page.goto(f"{demo_server.url}/docs")
    chat = page.locator("article", has=page.get_by_role("heading", name="post/v1/chat/completions", exact=True))
    chat.get_by_label("Example").select_option(label="Stream")
    chat.get_by_role("button", name="Send").click()
    expect(chat.locator("pre").first).to_contain_text("data: [DONE]", timeout=WITHIN)
