"""What a built wheel of brim carries: packages, the command, and the files that are no code."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from bootstrap import ROOT

pytestmark = pytest.mark.slow

PACKAGES = ("server", "converter", "demo", "Modelfiles")
DATA_FOLDERS = ("demo/checkpoint", "Modelfiles/demo")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
            *("--wheel-dir", str(folder), str(ROOT)),
        ],
        check=True,
    )
    return zipfile.ZipFile(next(folder.glob("brim-*.whl")))


def files_in(folder: str) -> set[str]:
    paths = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
    return {str(path) for path in paths if "__pycache__" not in path.parts}


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_carries_every_file_of_the_packages(wheel: zipfile.ZipFile, package: str) -> None:
    assert files_in(package) <= set(wheel.namelist())


@pytest.mark.parametrize("folder", DATA_FOLDERS)
def test_wheel_carries_what_serving_the_demo_model_takes(wheel: zipfile.ZipFile, folder: str) -> None:
    assert any(name.startswith(f"{folder}/") for name in wheel.namelist())


def test_wheel_has_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    names = {Path(name).name: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "brim = server.cli:main" in wheel.read(names["entry_points.txt"]).decode()
    assert b"MIT License" in wheel.read(names["LICENSE"])


def test_wheel_leaves_tests_and_tools_out(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
