"""Places for models: never more taken than there are, given in order, and refused in good time."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import RequestError
from server.models.places import Places


async def nobody_idle() -> bool:
    return False


async def test_free_places_are_given_at_once() -> None:
    places = Places(2, patience=0.01)
    await places.take(nobody_idle)
    await places.take(nobody_idle)
    with pytest.raises(RequestError) as caught:
        await places.take(nobody_idle)
    assert caught.value.status == 503
    assert caught.value.retry_after


async def test_an_idle_model_makes_way() -> None:
    places = Places(1)
    await places.take(nobody_idle)
    evictions: list[int] = []

    async def evict() -> bool:
        evictions.append(1)
        places.give_back()
        return True

    await places.take(evict)
    assert len(evictions) == 1


async def test_newcomers_wait_in_the_order_of_their_coming() -> None:
    places = Places(1)
    await places.take(nobody_idle)
    served: list[int] = []

    async def come(number: int) -> None:
        await places.take(nobody_idle)
        served.append(number)

    waiting = [asyncio.create_task(come(number)) for number in range(3)]
    for expected in range(3):
        await asyncio.sleep(0)
        assert served == list(range(expected))
        places.give_back()
        await asyncio.sleep(0.01)
    assert served == [0, 1, 2]
    await asyncio.gather(*waiting)


async def test_who_waits_looks_again_when_a_model_becomes_idle() -> None:
    places = Places(1)
    await places.take(nobody_idle)
    idle = False

    async def evict() -> bool:
        if idle:
            places.give_back()
        return idle

    waiting = asyncio.create_task(places.take(evict))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    idle = True
    places.look_again()
    await waiting


async def test_where_every_place_is_taken_for_good_a_newcomer_need_not_wait() -> None:
    with pytest.raises(RequestError, match="--max-models") as caught:
        await Places(0).take(nobody_idle)
    assert caught.value.retry_after is None
