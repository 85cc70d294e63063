from __future__ import annotations

import hashlib
import logging
import stat
from typing import TYPE_CHECKING

import pytest

from server.errors import BrimError
from server.keys import KeyRing, read_key_file
from server.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No brim.toml but the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRIM_HOME", str(tmp_path / "home"))


def sha256(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_hash_opens_for_the_key_it_is_of_and_not_for_itself() -> None:
    ring = KeyRing([sha256("one").upper().replace("SHA256", "sha256")])
    assert ring.partition("one") == KeyRing(["one"]).partition("one")
    assert ring.partition(sha256("one")) is None


def test_the_hash_of_nothing_lets_nobody_in() -> None:
    with pytest.raises(BrimError, match="the variable it was made of was empty"):
        KeyRing([sha256("")])
    assert KeyRing(["one"]).partition("") is None


def test_keys_come_from_flags_variables_and_a_file_with_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = key_file(tmp_path, f"# of the team\n\n  three  \n{sha256('four')}\n")
    flags = Settings.load(api_key=("one,two",), api_key_file=path).with_hashed_keys()
    assert flags.api_key == tuple(map(sha256, ("one", "two", "three", "four")))
    assert flags.api_key_file is None
    monkeypatch.setenv("BRIM_API_KEY", "five,six")
    monkeypatch.setenv("BRIM_API_KEY_FILE", str(path))
    variables = Settings.load().with_hashed_keys()
    assert variables.api_key == tuple(map(sha256, ("five", "six", "three", "four")))


def test_settings_with_hashed_keys_hold_no_key() -> None:
    assert "secret-key" not in repr(vars(Settings.load(api_key=("secret-key",)).with_hashed_keys()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("# only a comment\n", "holds no key"),
        ("one\ntwo words\n", "line 2 .*no spaces"),
        ("sha256:12ab\n", "line 1 .*64 hexadecimal digits"),
        ("schl\u00fcssel\n", "keys are ASCII"),
    ],
)
def test_a_wrong_file_is_told_without_repeating_its_lines(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BrimError, match=words) as failure:
        read_key_file(key_file(tmp_path, text))
    assert "two words" not in str(failure.value)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrimError, match="absent cannot be read: No such file"):
        read_key_file(tmp_path / "absent")


def test_a_malformed_key_of_a_flag_is_refused_without_repeating_it() -> None:
    with pytest.raises(BrimError, match="visible ASCII") as failure:
        Settings.load(api_key=("se cret",)).with_hashed_keys()
    assert "cret" not in str(failure.value)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_everyone_can_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    path = key_file(tmp_path, "one\n", mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    with caplog.at_level(logging.WARNING):
        read_key_file(path)
    assert ("chmod 600" in caplog.text) == warned


def test_a_key_file_is_as_good_as_a_key_to_listen_beyond_this_machine(tmp_path: Path) -> None:
    path = key_file(tmp_path, "one\n")
    assert Settings.load(host="0.0.0.0", api_key_file=path).host == "0.0.0.0"
