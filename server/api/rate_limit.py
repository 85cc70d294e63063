"""How often each caller may ask: a bucket of requests for each API key, or for each address where there are no keys.

The generic cell rate algorithm keeps one number a caller: when its bucket would be full again. So a caller may spend a
whole period's requests at once, and then has each back as time goes by.
Source: ITU-T I.371, appendix A; headers: https://platform.openai.com/docs/guides/rate-limits
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders

from server.api.errors import error_response
from server.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from server.rates import Rate

MOST_CALLERS = 10_000
"""Callers that are remembered; beyond, those that have not asked for longest begin anew."""
HEADERS = tuple(f"x-ratelimit-{what}-requests" for what in ("limit", "remaining", "reset"))


@dataclass(frozen=True)
class Standing:
    """How a caller stands after a request: what is left, seconds until all is back, and until one more is, if none."""

    remaining: int
    reset: float
    wait: float = 0.0


class Buckets:
    """The callers' buckets.

    Args:
        rate: what each may have.
        most: callers that are remembered.
    """

    def __init__(self, rate: Rate, most: int = MOST_CALLERS) -> None:
        self._rate = rate
        self._most = most
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, caller: str, now: float) -> Standing:
        """Take a request out of a caller's bucket, unless it must wait.

        Args:
            caller: whose.
            now: seconds, by any clock that does not go back.
        """
        each = self._rate.seconds / self._rate.requests
        full_at = max(now, self._full_at.pop(caller, now)) + each
        wait = full_at - now - self._rate.seconds
        refused = wait > each * 1e-6  # what rounding may come to
        if refused:
            full_at -= each
        self._full_at[caller] = full_at
        while len(self._full_at) > self._most:
            self._full_at.popitem(last=False)
        reset = full_at - now
        remaining = 0 if refused else math.floor((self._rate.seconds - reset) / each + 1e-6)
        return Standing(remaining, reset, wait if refused else 0.0)


class RateLimit:
    """ASGI middleware that answers 429 to callers who ask too often, and tells all how they stand.

    Only POST counts: looking at what there is costs next to nothing. It stands behind the `Guard`, which knows callers.

    Args:
        app: what is asked.
        rate: what each caller may have.
        clock: seconds.
    """

    def __init__(self, app: ASGIApp, *, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._rate = rate
        self._buckets = Buckets(rate)
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or turn it away."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        standing = self._buckets.take(_caller(scope), self._clock())
        told = dict(
            zip(HEADERS, (str(self._rate.requests), str(standing.remaining), _time(standing.reset)), strict=True)
        )
        if standing.wait:
            message = f"this caller may make {self._rate.requests} requests in {self._rate.seconds:g} seconds; wait"
            error = RequestError(message, status=429, code="rate_limit_exceeded", retry_after=standing.wait)
            await error_response(error, scope["path"], told)(scope, receive, send)
            return

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(told)
            await send(message)

        await self._app(scope, receive, telling)


def _caller(scope: Scope) -> str:
    """The key's partition, or else the client's address: of IPv6 the network, for hosts choose addresses in theirs."""
    if partition := scope["state"]["partition"]:
        return partition
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False))


def _time(seconds: float) -> str:
    """A time as OpenAI's headers have it, such as `6m0s`."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
