"""Makes the virtual environment that brim runs in; `make` calls it before everything else.

    python3 .ci/bootstrap.py [--dev] [--train] [--venv FOLDER] [--no-editable]

Only the standard library is imported, so any Python 3.11 or newer can run it. Each step leaves a stamp with the digest
of its inputs, written after its end: what is done is not done again, what was interrupted does not count as done, and a
change redoes the steps it concerns. Environment variables: BRIM_BACKEND (cpu, cuda, hip, vulkan, metal) instead of the
best backend found; CMAKE_ARGS for llama.cpp; BRIM_NO_WHEEL_CACHE=1 to compile although a finished wheel is kept.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine_wheel import PACKAGE, EngineWheel
from progress import run_logged
from toolchain import SetupError, check_python, choose_backend, describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Step:
    """One part of the set-up.

    Attributes:
        name: the name of its stamp.
        inputs: everything its result depends on.
        run: does it, whatever an earlier try has left behind.
    """

    name: str
    inputs: tuple[str, ...]
    run: Callable[[], None]

    @property
    def digest(self) -> str:
        """What the stamp of the finished step holds."""
        return hashlib.sha256("\0".join(self.inputs).encode()).hexdigest()


class Environment:
    """The virtual environment and the steps that lead to it.

    Args:
        venv: its folder.
        dev: with what tests and checks need.
        train: with what training the demo model needs.
        editable: brim runs from the checkout; otherwise it is copied in, and the checkout may go.
    """

    def __init__(self, venv: Path, *, dev: bool, editable: bool, train: bool = False) -> None:
        self.venv = venv
        self.dev = dev
        self.train = train
        self.editable = editable
        self.stamps = venv / "stamps"
        self.log = venv / "build.log"
        self.python = venv / "bin/python"
        self.base_python = str(getattr(sys, "_base_executable", sys.executable))
        self.backend = choose_backend(describe_machine(os.environ), os.environ.get("BRIM_BACKEND", ""))
        self.engine_requirement, self.packages = split_lock((ROOT / "requirements.lock").read_text())
        self.engine = EngineWheel(self.engine_requirement, self.backend, os.environ)

    def steps(self) -> list[Step]:
        """All steps, each one building on those before it."""
        pyproject = (ROOT / "pyproject.toml").read_text()
        python = ".".join(map(str, sys.version_info[:2]))
        steps = [
            Step("environment", (python, sys.base_prefix, str(self.venv)), self.create),
            Step("packages", (self.packages,), lambda: self.install_locked("what brim needs", self.packages)),
            Step("engine", (self.engine.key,), self.install_engine),
            Step("project", (pyproject, str(ROOT), str(self.editable)), self.install_project),
        ]
        if self.dev:
            _, packages = split_lock((ROOT / "requirements-dev.lock").read_text())
            label = "what tests and checks need"
            steps.append(Step("development", (packages,), lambda: self.install_locked(label, packages)))
        if self.train:
            steps.append(Step("training", (pyproject,), self.install_training))
        return steps

    def outdated(self) -> list[Step]:
        """The steps still to be done: those without a stamp of their inputs, and all where the first has none."""
        steps = self.steps()
        todo = [step for step in steps if not self.is_done(step)]
        return steps if steps[0] in todo else todo

    def is_done(self, step: Step) -> bool:
        """Whether a step was finished with the inputs that it has now."""
        stamp = self.stamps / step.name
        return stamp.exists() and stamp.read_text() == step.digest

    def perform(self, step: Step) -> None:
        """Runs a step; its stamp is gone before it begins and there again only after its end."""
        stamp = self.stamps / step.name
        stamp.unlink(missing_ok=True)
        step.run()
        self.stamps.mkdir(exist_ok=True)
        partial = stamp.with_suffix(".partial")
        partial.write_text(step.digest)
        partial.replace(stamp)

    def create(self) -> None:
        """Makes an empty virtual environment, in place of any that was there."""
        command = [self.base_python, "-m", "venv", "--clear", str(self.venv)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise SetupError(f"{' '.join(command)} failed:\n{made.stdout}{made.stderr}")

    def install_locked(self, what: str, packages: str) -> None:
        """Installs packages at their locked versions, checking their hashes."""
        requirements = self.venv / "requirements.txt"
        requirements.write_text(packages)
        options = ("--no-deps", "--require-hashes", "--requirement", str(requirements))
        self.pip_install(f"Installing {what}", *options)
        requirements.unlink()

    def install_engine(self) -> None:
        """Installs llama-cpp-python as compiled for this machine, and sees that it loads."""
        work = self.venv / "engine-build"
        wheel = self.engine.obtain(self.python, work, self.log)
        self.pip_install("Installing llama.cpp", "--no-deps", "--force-reinstall", str(wheel))
        loads = subprocess.run(
            [str(self.python), "-c", "import llama_cpp"], capture_output=True, text=True, check=False
        )
        if loads.returncode != 0:
            wheel.unlink()
            reason = loads.stderr.strip().splitlines()[-1]
            raise SetupError(f"The compiled llama.cpp does not load; run this again to compile it anew. {reason}")
        shutil.rmtree(work, ignore_errors=True)

    def install_project(self) -> None:
        """Installs brim itself, with its command `brim`."""
        self.pip_install("Installing brim", "--no-deps", "--no-build-isolation", *self.project())

    def install_training(self) -> None:
        """Installs PyTorch and what else the extra `train` names: the build that pip finds for this machine."""
        self.pip_install("Installing PyTorch", "--no-build-isolation", *self.project("[train]"))

    def project(self, extra: str = "") -> list[str]:
        """What pip is told to install brim from."""
        return ["--editable", f"{ROOT}{extra}"] if self.editable else [f"{ROOT}{extra}"]

    def pip_install(self, label: str, *arguments: str) -> None:
        """Runs `pip install` in the environment."""
        pip = (str(self.python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check")
        run_logged(label, [*pip, *arguments], self.log)


def split_lock(lock: str) -> tuple[str, str]:
    """Splits a lock file into llama-cpp-python, which is compiled, and all the rest, which pip installs as it is.

    Returns:
        The lines of the one and of the others, continuation lines with hashes included.
    """
    engine: list[str] = []
    others: list[str] = []
    target = others
    for line in lock.splitlines(keepends=True):
        if not line[0].isspace():
            target = engine if line.startswith(f"{PACKAGE}==") else others
        target.append(line)
    return "".join(engine), "".join(others)


@contextmanager
def only_one_at_a_time(folder: Path) -> Iterator[None]:
    """Holds a lock on `folder`: of two runs of make side by side, one sets up and the other waits for it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another set-up of this environment to end.", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def set_up(environment: Environment) -> None:
    """Does what is still to be done."""
    if not environment.outdated():
        return
    environment.venv.parent.mkdir(parents=True, exist_ok=True)
    with only_one_at_a_time(environment.venv.parent):
        todo = environment.outdated()
        if not todo:
            return
        check_python()
        if "engine" in {step.name for step in todo}:
            environment.engine.check_obtainable()
        print(f"Setting up {environment.venv} for the backend {environment.backend.name}", flush=True)
        if environment.backend.remark:
            print(f"  {environment.backend.remark}", flush=True)
        environment.log.unlink(missing_ok=True)
        for step in todo:
            environment.perform(step)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the set-up; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make the virtual environment that brim runs in.")
    parser.add_argument("--dev", action="store_true", help="with what tests and checks need")
    parser.add_argument("--train", action="store_true", help="with what training the demo model needs")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="its folder (default: %(default)s)")
    parser.add_argument(
        "--no-editable", action="store_true", help="copy brim into it instead of pointing at this checkout"
    )
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        editable = not options.no_editable
        set_up(Environment(options.venv.absolute(), dev=options.dev, editable=editable, train=options.train))
    except SetupError as error:
        print(f"brim: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; the next run goes on from here.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
