from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.errors import BrimError
from server.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No brim.toml and no variables but the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRIM_HOME", str(tmp_path / "home"))
    return tmp_path


def test_flags_come_before_the_environment_before_the_file_before_defaults(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folder / "brim.toml").write_text('port = 1\nparallel = 2\ncache_ram = "1GiB"\n')
    monkeypatch.setenv("BRIM_PORT", "3")
    monkeypatch.setenv("BRIM_CACHE_RAM", "2GiB")

    settings = Settings.load(cache_ram="3GiB", port=None)

    assert (settings.cache_ram, settings.port, settings.parallel) == (3 * 1024**3, 3, 2)
    assert settings.host == "127.0.0.1"
    assert settings.model_fields_set >= {"cache_ram", "port", "parallel"}


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIM_API_KEY", "one, two")
    monkeypatch.setenv("BRIM_MODELS", "demo")
    settings = Settings.load(rpc="a:1,b:2")
    assert settings.api_key == ("one", "two")
    assert settings.models == ("demo",)
    assert settings.rpc == ("a:1", "b:2")


@pytest.mark.parametrize(("given", "meant"), [("auto", "auto"), ("all", "all"), ("12", 12), ("0", 0)])
def test_gpu_layers_are_auto_all_or_a_number(given: str, meant: str | int) -> None:
    assert Settings.load(gpu_layers=given).gpu_layers == meant


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"port": 70000}, "port: .*65535.*70000"),
        ({"gpu_layers": "many"}, "gpu-layers: .*'auto' or 'all'.*integer.*'many'"),
        ({"kv_type": "q9"}, "kv-type: .*'q8_0'"),
        ({"cache_ram": "much"}, "cache-ram: 'much' is not a size; write it as 6GiB"),
        ({"parallel": 0}, "parallel: .*greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_right(flags: dict[str, object], message: str) -> None:
    with pytest.raises(BrimError, match=message):
        Settings.load(**flags)


def test_an_unknown_setting_in_the_file_is_named(own_folder: Path) -> None:
    (own_folder / "brim.toml").write_text("prot = 1\n")
    with pytest.raises(BrimError, match=r"brim\.toml: there is no setting 'prot'"):
        Settings.load()


def test_a_file_that_is_no_toml_is_refused(own_folder: Path) -> None:
    (own_folder / "brim.toml").write_text("port = \n")
    with pytest.raises(BrimError, match=r"brim\.toml cannot be read"):
        Settings.load()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_listening_beyond_this_machine_needs_a_key_or_a_clear_word(host: str) -> None:
    with pytest.raises(BrimError, match="--api-key"):
        Settings.load(host=host)
    assert Settings.load(host=host, api_key="secret").host == host
    assert Settings.load(host=host, no_key=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_listening_on_this_machine_needs_none(host: str) -> None:
    assert Settings.load(host=host).is_local


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(Settings.load(api_key="secret"))
