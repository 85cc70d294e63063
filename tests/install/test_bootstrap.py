"""The set-up does nothing twice, and nothing that was interrupted counts as done."""

import subprocess
import sys
from pathlib import Path

import pytest
from bootstrap import ROOT, Environment, Step, split_lock


class Recorder:
    """Steps that note that they ran, and fail where they are told to."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.failing: str | None = None

    def step(self, name: str, *inputs: str) -> Step:
        def run() -> None:
            if name == self.failing:
                raise KeyboardInterrupt
            self.ran.append(name)

        return Step(name, inputs, run)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path, dev=True, editable=True)


def test_a_finished_step_stays_done_until_its_inputs_change(environment: Environment) -> None:
    recorder = Recorder()
    environment.perform(recorder.step("packages", "a==1"))
    assert environment.is_done(recorder.step("packages", "a==1"))
    assert not environment.is_done(recorder.step("packages", "a==2"))


def test_inputs_are_told_apart_from_their_concatenation(environment: Environment) -> None:
    recorder = Recorder()
    environment.perform(recorder.step("packages", "ab", "c"))
    assert not environment.is_done(recorder.step("packages", "a", "bc"))


def test_an_interrupted_step_is_not_done_even_if_it_once_was(environment: Environment) -> None:
    recorder = Recorder()
    step = recorder.step("engine", "cpu")
    environment.perform(step)
    recorder.failing = "engine"
    with pytest.raises(KeyboardInterrupt):
        environment.perform(step)
    assert not environment.is_done(step)


def test_everything_is_outdated_in_a_new_folder(environment: Environment) -> None:
    names = [step.name for step in environment.outdated()]
    assert names == ["environment", "packages", "engine", "project", "development"]


def test_a_new_virtual_environment_outdates_all_that_was_in_the_old_one(environment: Environment) -> None:
    environment.stamps.mkdir()
    steps = environment.steps()
    for step in steps[1:]:
        (environment.stamps / step.name).write_text(step.digest)
    assert len(environment.outdated()) == len(steps)


def test_only_what_changed_is_outdated(environment: Environment) -> None:
    environment.stamps.mkdir()
    for step in environment.steps():
        (environment.stamps / step.name).write_text(step.digest)
    assert environment.outdated() == []
    (environment.stamps / "project").write_text("another digest")
    assert [step.name for step in environment.outdated()] == ["project"]


def test_the_lock_is_split_into_the_engine_and_the_rest() -> None:
    anyio = "anyio==4.1 \\\n    --hash=sha256:aa\n"
    llama = "llama-cpp-python==0.3.36 \\\n    --hash=sha256:bb\n"
    numpy = "numpy==2.4 \\\n    --hash=sha256:cc\n"
    assert split_lock(anyio + llama + numpy) == (llama, anyio + numpy)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_version_is_exact_and_hashed(name: str) -> None:
    engine, others = split_lock((ROOT / name).read_text())
    assert engine.startswith("llama-cpp-python==0.3.36 ")
    for line in (engine + others).splitlines():
        assert line.startswith("    --hash=sha256:") or "==" in line
    assert "://" not in engine + others


def test_development_lock_agrees_with_the_run_time_lock() -> None:
    def pins(name: str) -> set[str]:
        return {line.split(" ")[0] for line in (ROOT / name).read_text().splitlines() if "==" in line.split(" ")[0]}

    assert pins("requirements.lock") <= pins("requirements-dev.lock")


def test_wrong_backend_is_one_sentence_without_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci/bootstrap.py"), "--venv", str(tmp_path / "venv")],
        env={"PATH": "/usr/bin:/bin", "BRIM_BACKEND": "abacus"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "brim: BRIM_BACKEND=abacus is no backend; choose one of cpu, cuda, hip, vulkan, metal.\n"
    assert not (tmp_path / "venv").exists()
