from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("17B", 17),
        ("6GiB", 6 * 1024**3),
        ("6GB", 6 * 1000**3),
        ("1.5 KiB", 1536),
        ("512mib", 512 * 1024**2),
        ("2TB", 2 * 1000**4),
    ],
)
def test_sizes_are_read_in_powers_of_1000_and_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "6G", "6Gi", "6iB", "-1GiB", "6 giga", "1e3", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it as 6GiB"):
        parse_size(text)


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        parse_size(-1)


@given(st.integers(0, 10**15))
def test_a_plain_number_means_bytes(size: int) -> None:
    assert parse_size(str(size)) == parse_size(size) == size


@given(st.integers(0, 1023), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
def test_what_is_written_reads_back(number: int, unit: str) -> None:
    size = parse_size(f"{number}{unit}")
    assert parse_size(format_size(size)) == size
