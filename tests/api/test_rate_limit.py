"""How often each caller may ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.rate_limit import Buckets
from server.errors import BrimError
from server.rates import Rate, parse_rate
from server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    MakeClient = Callable[..., httpx.AsyncClient]

KEYS = ("first-key", "second-key")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("text", "rate"), [("1/second", Rate(1, 1)), ("60/minute", Rate(60, 60)), ("9/day", Rate(9, 86_400))]
)
def test_rates_are_read(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate
    assert Settings(rate_limit=text).rate_limit == rate  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("text", ["", "0/minute", "-1/minute", "60", "60/fortnight", "1.5/second", "60 / minute"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(BrimError, match=r"rate-limit: .*write it as 60/minute"):
        Settings.load(rate_limit=text)


def test_a_bucket_is_spent_and_fills_again() -> None:
    buckets = Buckets(Rate(3, 60))
    assert [buckets.take("a", 0.0).remaining for _ in range(3)] == [2, 1, 0]
    refused = buckets.take("a", 0.0)
    assert (refused.remaining, refused.wait, refused.reset) == (0, pytest.approx(20), pytest.approx(60))
    assert not buckets.take("b", 0.0).wait
    assert buckets.take("a", 19.0).wait == pytest.approx(1)
    assert not buckets.take("a", 20.0).wait
    assert buckets.take("a", 20.0).wait == pytest.approx(20)
    assert buckets.take("a", 500.0).remaining == 2


@given(
    st.integers(1, 5),
    st.sampled_from([1.0, 60.0, 3600.0]),
    st.lists(st.floats(0, 100), max_size=60),
)
def test_no_stretch_of_time_has_more_than_two_periods_worth(requests: int, seconds: float, pauses: list[float]) -> None:
    buckets, now = Buckets(Rate(requests, seconds)), 0.0
    taken: list[float] = []
    for pause in pauses:
        now += pause
        if not buckets.take("a", now).wait:
            taken.append(now)
    for first in taken:
        assert sum(first <= one < first + seconds for one in taken) <= 2 * requests


def test_memory_is_bounded() -> None:
    buckets = Buckets(Rate(1, 60), most=2)
    for caller in "abc":
        assert not buckets.take(caller, 0.0).wait
    assert buckets.take("c", 0.0).wait
    assert not buckets.take("a", 0.0).wait, "the longest unseen begins anew"


async def test_a_caller_who_asks_too_often_is_told_when_to_come_back(make_client: MakeClient) -> None:
    client = make_client(rate_limit="2/minute")
    for remaining in ("1", "0"):
        answer = await client.post("/v1/chat/completions", json={})
        assert answer.status_code == 400
        assert answer.headers["x-ratelimit-limit-requests"] == "2"
        assert answer.headers["x-ratelimit-remaining-requests"] == remaining
    refused = await client.post("/v1/chat/completions", json={})
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(refused.headers["retry-after"]) <= 30
    assert refused.headers["x-ratelimit-reset-requests"] in ("1m0s", "59s", "60s")
    assert (await client.get("/v1/models")).status_code == 200, "looking is free"


@pytest.mark.parametrize("path", ["/v1/messages", "/api/chat", "/completion"])
async def test_each_protocol_has_it_in_its_own_form(make_client: MakeClient, path: str) -> None:
    client = make_client(rate_limit="1/day")
    await client.post(path, json={})
    refused = await client.post(path, json={})
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert "1 requests in 86400 seconds" in (error if isinstance(error, str) else error["message"])


async def test_each_key_has_a_bucket_of_its_own(make_client: MakeClient) -> None:
    client = make_client(rate_limit="1/hour", api_key=KEYS)
    for key in KEYS:
        assert (await client.post("/v1/completions", json={}, headers=bearer(key))).status_code == 400
        assert (await client.post("/v1/completions", json={}, headers=bearer(key))).status_code == 429
    assert (await client.post("/v1/completions", json={}, headers=bearer("wrong"))).status_code == 401


async def test_without_a_rate_nothing_is_counted(make_client: MakeClient) -> None:
    answer = await make_client().post("/v1/completions", json={})
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
