"""A compiled wheel is named by all that its machine code depends on, and kept whole or not at all."""

from pathlib import Path

from engine_wheel import EngineWheel, describe_cpu, find_wheel, keep
from toolchain import Backend

REQUIREMENT = "llama-cpp-python==0.3.36 \\\n    --hash=sha256:00\n"
CPU = Backend("cpu")


def test_rpc_is_always_built_and_the_users_arguments_come_last() -> None:
    wheel = EngineWheel(
        REQUIREMENT, Backend("cuda", ("-DGGML_CUDA=ON",)), {"CMAKE_ARGS": "-DGGML_NATIVE=OFF -DX='a b'"}
    )
    assert wheel.cmake_args == ("-DGGML_RPC=ON", "-DGGML_CUDA=ON", "-DGGML_NATIVE=OFF", "-DX=a b")


def test_key_depends_on_version_backend_and_arguments() -> None:
    wheels = [
        EngineWheel(REQUIREMENT, CPU, {}),
        EngineWheel(REQUIREMENT.replace("36", "37"), CPU, {}),
        EngineWheel(REQUIREMENT, Backend("vulkan", ("-DGGML_VULKAN=ON",)), {}),
        EngineWheel(REQUIREMENT, CPU, {"CMAKE_ARGS": "-DGGML_NATIVE=OFF"}),
    ]
    assert len({wheel.key for wheel in wheels}) == len(wheels)
    assert wheels[0].key == EngineWheel(REQUIREMENT, CPU, {"PATH": "/elsewhere"}).key


def test_the_cache_can_be_moved_and_switched_off(tmp_path: Path) -> None:
    moved = EngineWheel(REQUIREMENT, CPU, {"XDG_CACHE_HOME": str(tmp_path)}).cache_folder
    assert moved and moved.parent == tmp_path / "brim/wheels"
    assert EngineWheel(REQUIREMENT, CPU, {"BRIM_NO_WHEEL_CACHE": "1"}).cache_folder is None


def test_a_cached_wheel_is_taken_without_compiling(tmp_path: Path) -> None:
    engine = EngineWheel(REQUIREMENT, CPU, {"XDG_CACHE_HOME": str(tmp_path), "PATH": ""})
    assert engine.cache_folder
    built = tmp_path / "llama_cpp_python-0.3.36-py3-none-any.whl"
    built.write_bytes(b"wheel")
    kept = keep(built, engine.cache_folder)
    assert engine.obtain(python=Path("/nowhere/python"), work=tmp_path / "work", log=tmp_path / "log") == kept
    assert kept.read_bytes() == b"wheel"


def test_a_half_copied_wheel_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "llama_cpp_python-0.3.36-py3-none-any.whl.77.partial").touch()
    assert find_wheel(tmp_path) is None


def test_the_processor_is_described() -> None:
    assert describe_cpu()
