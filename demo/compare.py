"""Writes the model card's table of quantization types: converts to each, serves it and asks (`demo.compare`)."""

import argparse
import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from demo.evaluate import CATEGORIES, STOPS, cases, openai_ask, run, scores
from demo.loss import mean_loss

TYPES = ("F16", "Q8_0", "Q6_K", "Q4_K_M", "Q3_K_S", "Q2_K")
LOSS = "mean loss of right answers, nats a token"
CHECKPOINT = Path(__file__).parent / "checkpoint"
START_SECONDS = 120.0


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=120, help="cases per category")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        columns = [_column(kind, Path(folder), arguments.count, arguments.seed) for kind in TYPES]
    print("\n".join(_markdown(columns)))


def _column(kind: str, folder: Path, count: int, seed: int) -> dict[str, str]:
    """Return one type's figures by row."""
    file = folder / f"demo-{kind}.gguf"
    brim = [sys.executable, "-m", "server.cli"]
    subprocess.run([*brim, "convert", str(CHECKPOINT), "--quant", kind, "--out", str(file)], check=True)
    chosen = cases(count, seed)
    with _served([*brim, "serve", str(file)]) as url:
        reached = scores(asyncio.run(run(chosen, openai_ask(url, file.stem, "none"))))
        loss = asyncio.run(mean_loss(chosen, url, file.stem, "none"))
    figures = {category: f"{reached[category]:.1%}" for category in (*CATEGORIES, STOPS)}
    column = {"": kind, **figures, LOSS: f"{loss:.4f}"}
    print(column, flush=True)
    return column


@contextmanager
def _served(command: Sequence[str]) -> Generator[str]:
    """Serve a model on a free port; yields the API's URL once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([*command, "--port", str(port)])
    try:
        _wait(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit("the server ended before it answered")
        with suppress(URLError, OSError), urlopen(url):
            return
        time.sleep(0.2)
    raise SystemExit(f"the server did not answer within {START_SECONDS:.0f} seconds")


def _markdown(columns: Sequence[dict[str, str]]) -> Iterator[str]:
    for at, name in enumerate(columns[0]):
        yield f"| {name} | {' | '.join(column[name] for column in columns)} |"
        if at == 0:
            yield "|---" * (len(columns) + 1) + "|"


if __name__ == "__main__":
    main()
