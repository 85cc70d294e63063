"""What is kept of responses, for whom, and for how long."""

from __future__ import annotations

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.api.openai.responses import store as store_module
from server.api.openai.responses.store import DAY, Kept, ResponseStore
from server.errors import RequestError

if TYPE_CHECKING:
    from pathlib import Path

OURS, THEIRS = "ours", "theirs"


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(store_module, "time", clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "brim" / "responses.db"


def open_store(path: Path, *, days: float = 30, most_bytes: int = 1_000_000) -> ResponseStore:
    return ResponseStore(path, days=days, most_bytes=most_bytes)


def item(name: str, text: str = "") -> dict[str, Any]:
    return {"id": name, "type": "message", "role": "user", "content": text}


def response(name: str, previous: str | None = None, text: str = "") -> Kept:
    body = {"id": name, "object": "response", "previous_response_id": previous}
    return Kept(body, [item(f"in_{name}", text)], [item(f"out_{name}", text)])


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [one["id"] for one in items]


def is_missing(store: ResponseStore, name: str, partition: str = OURS) -> bool:
    try:
        store.load(name, partition)
    except RequestError as error:
        assert error.status == 404
        return True
    return False


def test_what_is_kept_is_found_again(path: Path) -> None:
    open_store(path).save(response("a"), OURS)
    assert open_store(path).load("a", OURS) == response("a")
    assert open_store(path).item("out_a", OURS) == item("out_a")


def test_the_file_is_its_owners_only_and_made_when_needed(path: Path) -> None:
    store = open_store(path)
    assert is_missing(store, "a")
    assert not path.exists()
    store.save(response("a"), OURS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_another_callers_response_is_not_there(path: Path) -> None:
    store = open_store(path)
    store.save(response("a"), OURS)
    assert is_missing(store, "a", THEIRS)
    for look in (store.conversation, store.delete):
        with pytest.raises(RequestError, match="there is no response 'a'") as missing:
            look("a", THEIRS)
        assert missing.value.status == 404
    with pytest.raises(RequestError, match="there is no item"):
        store.item("in_a", THEIRS)
    assert not is_missing(store, "a")


def test_nobody_goes_on_from_anothers_response(path: Path) -> None:
    store = open_store(path)
    store.save(response("a"), THEIRS)
    store.save(response("b", previous="a"), OURS)
    with pytest.raises(RequestError, match="goes on from 'a', which is no longer kept"):
        store.conversation("b", OURS)


def test_what_cannot_be_gone_on_from_has_one_code_whichever_part_is_missing(path: Path) -> None:
    store = open_store(path)
    store.save(response("b", previous="a"), OURS)
    for name in ("a", "b"):
        with pytest.raises(RequestError) as caught:
            store.conversation(name, OURS)
        assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")
    with pytest.raises(RequestError) as caught:
        store.load("a", OURS)
    assert caught.value.code == "not_found"


def test_a_conversation_is_all_that_came_before_in_order(path: Path) -> None:
    store = open_store(path)
    store.save(response("a"), OURS)
    store.save(response("b", previous="a"), OURS)
    store.save(response("c", previous="b"), OURS)
    store.save(response("other", previous="a"), OURS)
    assert ids(store.conversation("c", OURS)) == ["in_a", "out_a", "in_b", "out_b", "in_c", "out_c"]
    assert ids(store.conversation("other", OURS)) == ["in_a", "out_a", "in_other", "out_other"]


def test_a_deleted_response_is_gone_and_breaks_what_goes_on_from_it(path: Path) -> None:
    store = open_store(path)
    store.save(response("a", text="a secret of mine"), OURS)
    store.save(response("b", previous="a"), OURS)
    store.delete("a", OURS)
    assert is_missing(store, "a")
    assert b"a secret of mine" not in path.read_bytes()
    with pytest.raises(RequestError, match="no longer kept; send the whole conversation"):
        store.conversation("b", OURS)


def test_what_was_not_used_for_long_is_removed(path: Path, clock: Clock) -> None:
    store = open_store(path, days=30)
    store.save(response("used"), OURS)
    store.save(response("unused"), OURS)
    clock.now += 20 * DAY
    store.conversation("used", OURS)
    clock.now += 20 * DAY
    assert not is_missing(store, "used")
    assert is_missing(store, "unused")
    store.save(response("new"), OURS)
    with sqlite3.connect(path) as db:
        assert {row[0] for row in db.execute("SELECT id FROM responses")} == {"used", "new"}
        assert {row[0] for row in db.execute("SELECT DISTINCT response FROM items")} == {"used", "new"}
    db.close()


def test_where_space_runs_out_the_longest_unused_goes_first(path: Path, clock: Clock) -> None:
    store = open_store(path, most_bytes=3_000)
    for name in "abc":
        store.save(response(name, text="x" * 300), OURS)
        clock.now += 1
    store.conversation("a", OURS)
    clock.now += 1
    store.save(response("d", text="x" * 300), OURS)
    assert [name for name in "abcd" if not is_missing(store, name)] == ["a", "c", "d"]


def test_a_response_larger_than_all_may_be_is_refused(path: Path) -> None:
    store = open_store(path, most_bytes=1_000)
    store.save(response("a"), OURS)
    with pytest.raises(RequestError, match="more than may be kept: 1000"):
        store.save(response("b", text="x" * 1_000), OURS)
    assert not is_missing(store, "a")


def test_many_at_once_are_all_kept(path: Path) -> None:
    store = open_store(path)
    with ThreadPoolExecutor(8) as pool:
        for saving in [pool.submit(store.save, response(f"r{number}"), OURS) for number in range(24)]:
            saving.result()
    assert not any(is_missing(store, f"r{number}") for number in range(24))


def test_a_file_that_is_no_store_is_left_alone_and_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"my diary, " * 1_000)
    with pytest.raises(RequestError, match=r"responses\.db, cannot be used") as broken:
        open_store(path).save(response("a"), OURS)
    assert broken.value.status == 503
    assert path.read_bytes() == b"my diary, " * 1_000


def test_a_store_of_another_layout_is_refused(path: Path) -> None:
    open_store(path).save(response("a"), OURS)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(RequestError, match="another version of brim made it"):
        open_store(path).load("a", OURS)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([OURS, THEIRS])), min_size=1, max_size=10))
def test_conversations_never_cross_partitions(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[int, str]]
) -> None:
    store = open_store(tmp_path_factory.mktemp("store") / "responses.db")
    owner: dict[str, str] = {}
    for number, (back, partition) in enumerate(turns):
        previous = f"r{number - 1 - back}" if number > back else None
        store.save(response(f"r{number}", previous), partition)
        owner[f"r{number}"] = partition
        try:
            found = store.conversation(f"r{number}", partition)
        except RequestError:
            assert previous
            continue
        assert {owner[one["id"].split("_")[1]] for one in found} == {partition}
