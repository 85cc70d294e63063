"""The backend follows from what a machine has, and what is missing is named with its remedy."""

import os
import platform
from pathlib import Path

import pytest
import toolchain
from hypothesis import given
from hypothesis import strategies as st
from toolchain import BACKENDS, Machine, SetupError, check_compiler, check_python, choose_backend, describe_machine

NVCC = "/usr/local/cuda/bin/nvcc"
HIPCC = "/opt/rocm/bin/hipcc"

machines = st.builds(
    Machine,
    system=st.sampled_from(["Linux", "Darwin"]),
    nvcc=st.sampled_from([None, NVCC]),
    nvidia_driver=st.booleans(),
    hipcc=st.sampled_from([None, HIPCC]),
    amd_driver=st.booleans(),
    vulkan=st.booleans(),
)


@pytest.mark.parametrize(
    ("machine", "backend"),
    [
        (Machine(), "cpu"),
        (Machine(nvcc=NVCC, nvidia_driver=True, hipcc=HIPCC, amd_driver=True, vulkan=True), "cuda"),
        (Machine(nvcc=NVCC, hipcc=HIPCC, amd_driver=True, vulkan=True), "hip"),
        (Machine(nvcc=NVCC), "cpu"),
        (Machine(nvidia_driver=True), "cpu"),
        (Machine(nvidia_driver=True, vulkan=True), "vulkan"),
        (Machine(hipcc=HIPCC, vulkan=True), "vulkan"),
        (Machine(system="Darwin"), "metal"),
    ],
)
def test_best_backend(machine: Machine, backend: str) -> None:
    assert choose_backend(machine).name == backend


@given(machines)
def test_every_machine_has_a_backend(machine: Machine) -> None:
    assert choose_backend(machine).name in BACKENDS


@given(machines, st.sampled_from(BACKENDS))
def test_a_wanted_backend_is_built_or_refused_by_name(machine: Machine, wanted: str) -> None:
    try:
        assert choose_backend(machine, wanted).name == wanted
    except SetupError as refusal:
        assert f"BRIM_BACKEND={wanted}" in str(refusal)


def test_cuda_is_compiled_for_the_present_card_only() -> None:
    native = "-DCMAKE_CUDA_ARCHITECTURES=native"
    assert native in choose_backend(Machine(nvcc=NVCC, nvidia_driver=True)).cmake_args
    assert native not in choose_backend(Machine(nvcc=NVCC), "cuda").cmake_args


@pytest.mark.parametrize(
    ("machine", "word"),
    [(Machine(nvcc=NVCC), "BRIM_BACKEND=cuda"), (Machine(nvidia_driver=True), "nvcc"), (Machine(hipcc=HIPCC), "HIP")],
)
def test_half_a_toolchain_is_remarked_on(machine: Machine, word: str) -> None:
    remark = choose_backend(machine).remark
    assert remark and word in remark


def test_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(SetupError, match=r"BRIM_BACKEND=directx.*cpu, cuda, hip, vulkan, metal"):
        choose_backend(Machine(), "directx")


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path


def test_an_empty_machine_has_nothing(tmp_path: Path) -> None:
    assert describe_machine({"PATH": ""}, tmp_path) == Machine(system=platform.system())


def test_nvcc_is_found_off_the_path_and_the_driver_by_its_device(tmp_path: Path) -> None:
    nvcc = program(tmp_path / "usr/local/cuda-13.0/bin/nvcc")
    program(tmp_path / "dev/nvidiactl")
    found = describe_machine({"PATH": ""}, tmp_path)
    assert (found.nvcc, found.nvidia_driver) == (str(nvcc), True)


def test_cuda_home_comes_before_usr_local(tmp_path: Path) -> None:
    program(tmp_path / "usr/local/cuda/bin/nvcc")
    chosen = program(tmp_path / "cuda-12/bin/nvcc")
    assert describe_machine({"PATH": "", "CUDA_HOME": str(tmp_path / "cuda-12")}, tmp_path).nvcc == str(chosen)


def test_vulkan_takes_compiler_loader_and_both_headers(tmp_path: Path) -> None:
    search = {"PATH": str(program(tmp_path / "bin/glslc").parent)}
    parts = [
        "usr/lib/x86_64-linux-gnu/libvulkan.so",
        "usr/include/vulkan/vulkan.h",
        "usr/include/spirv/unified1/spirv.hpp",
    ]
    for part in parts:
        assert not describe_machine(search, tmp_path).vulkan
        program(tmp_path / part)
    assert describe_machine(search, tmp_path).vulkan


@pytest.mark.skipif(platform.system() != "Linux", reason="macOS has a single source of compilers")
@pytest.mark.parametrize(
    ("os_release", "remedy"),
    [
        ('ID=ubuntu\nID_LIKE=debian\nVERSION="24.04"\n', "sudo apt install g++"),
        ("ID=fedora\n", "sudo dnf install gcc-c++"),
        ('ID=manjaro\nID_LIKE="arch"\n', "sudo pacman -S gcc"),
        ("ID=plan9\n", "install g++ or clang++"),
    ],
)
def test_missing_compiler_names_the_package(tmp_path: Path, os_release: str, remedy: str) -> None:
    (tmp_path / "os-release").write_text(os_release)
    with pytest.raises(SetupError) as refusal:
        check_compiler({"PATH": str(tmp_path)}, tmp_path / "os-release")
    assert remedy in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.skipif(platform.system() != "Linux", reason="macOS has a single source of compilers")
@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_any_common_compiler_will_do(tmp_path: Path, name: str) -> None:
    program(tmp_path / name)
    check_compiler({"PATH": str(tmp_path)})


def test_old_python_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "OLDEST_PYTHON", (99, 0))
    with pytest.raises(SetupError, match=r"brim needs Python 99\.0 or newer.*make PYTHON="):
        check_python()


def test_missing_ensurepip_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_module(name: str) -> None:
        assert name == "ensurepip"

    monkeypatch.setattr(toolchain.importlib.util, "find_spec", no_module)
    with pytest.raises(SetupError, match=r"sudo apt install python3\.\d+-venv"):
        check_python()


def test_this_machine_can_be_described() -> None:
    assert describe_machine(os.environ).system == platform.system()
