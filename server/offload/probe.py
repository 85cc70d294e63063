"""A short-lived process that asks llama.cpp about devices and memory, so that the server itself never opens a GPU.

`python -m server.offload.probe` reads one question (see `server.offload.questions`) from standard input and writes its
answer to standard output.
"""

# pyright: basic, reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false

from __future__ import annotations

import ctypes
import os
import re
import socket
import sys
import threading
import time

import msgspec

from server.offload.bindings import libggml  # before the rest of llama_cpp
from server.offload.ggml import Ggml
from server.offload.measuring import measure
from server.offload.questions import (
    Answer,
    DeviceFacts,
    DeviceList,
    DryRun,
    DryRunResult,
    Failure,
    ListDevices,
    Measure,
    Question,
    Speeds,
)

import llama_cpp.llama_cpp as ll  # isort: skip

KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}  # ggml_type
_COMPUTE_SIZE = re.compile(r"reserve: +(\S+) +compute buffer size = +([\d.]+) MiB")
_KV_SIZE = re.compile(r"(?:llama_kv_cache|llama_memory_recurrent)\w*: size = +([\d.]+) MiB")
_PIPELINE = "pipeline parallelism enabled"
_PIPELINE_COPIES = 4  # GGML_SCHED_MAX_COPIES
_LOG_STEP = 0.01
"""llama.cpp prints MiB with two decimals."""


def main() -> None:
    """Answer the one question on standard input."""
    answer_to = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # llama.cpp's RPC server prints to standard output
    ggml = Ggml(libggml)
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    try:
        answer: Answer = answer_question(ggml, question)
    except (OSError, AttributeError) as error:
        answer = Failure(str(error))
    answer_to.write(msgspec.json.encode(answer))
    answer_to.flush()
    os._exit(0)  # a stand-in server's thread never ends by itself


def answer_question(ggml: Ggml, question: Question) -> Answer:
    """Answer a question. Raises OSError where a device or RPC worker fails, AttributeError without RPC."""
    match question:
        case ListDevices(rpc):
            reached, failures = [], []
            for endpoint in rpc:
                try:
                    ggml.add_rpc_server(endpoint)
                    reached.append(endpoint)
                except OSError as error:
                    failures.append(str(error))
            facts = tuple(facts for _, facts in list_devices(ggml))
            return DeviceList(facts, tuple(reached), tuple(failures))
        case DryRun():
            return dry_run(ggml, question)
        case Measure(devices, rpc, threads):
            for endpoint in rpc:
                ggml.add_rpc_server(endpoint)
            return Speeds(tuple(measure(ggml, name, threads) for name in devices))


def list_devices(ggml: Ggml) -> list[tuple[int, DeviceFacts]]:
    """Every device's handle and what ggml says of it."""
    devices = []
    seen: dict[str, int] = {}
    for handle, device in ggml.devices():
        buffer = device.name
        if device.backend == "RPC":  # an RPC buffer is named by the device's number within its endpoint
            index = seen.get(device.description, 0)
            seen[device.description] = index + 1
            buffer = f"RPC{index}[{device.description}]"
        facts = DeviceFacts(
            name=device.name,
            description=device.description,
            type=device.type,
            backend=device.backend,
            total=device.total,
            free=device.free,
            buffer=buffer,
            pci=device.pci,
        )
        devices.append((handle, facts))
    return devices


def start_stand_ins(ggml: Ggml, count: int) -> None:
    """Register `count` devices whose only part is to be planned for: the CPU behind a loopback RPC server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    cpu = ggml.device_named("CPU")
    threading.Thread(target=ggml.serve_rpc, args=(endpoint, [cpu] * count, 1), daemon=True).start()
    for attempt in range(50):
        try:
            socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])), timeout=1).close()
            break
        except OSError:
            time.sleep(0.02 * (attempt + 1))
    ggml.add_rpc_server(endpoint)


class _Override(ctypes.Structure):
    """llama_model_tensor_buft_override: tensors whose names match go to a buffer type."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


class _Log:
    """Reads the sizes that llama.cpp logs."""

    def __init__(self) -> None:
        self.compute: dict[str, int] = {}
        self.kv = 0
        self.pipeline = False
        self.errors: list[str] = []
        self._callback = ll.llama_log_callback(self._receive)
        ll.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _: object) -> None:
        line = text.decode("utf-8", "replace")
        if found := _COMPUTE_SIZE.search(line):
            self.compute[found[1]] = _bytes(found[2])
        elif found := _KV_SIZE.search(line):
            self.kv += _bytes(found[1])
        elif _PIPELINE in line:
            self.pipeline = True
        elif level == 4:  # GGML_LOG_LEVEL_ERROR
            self.errors.append(line.strip())


def _bytes(mebibytes: str) -> int:
    size = float(mebibytes)
    return int((size + _LOG_STEP / 2) * 2**20) if size else 0


def dry_run(ggml: Ggml, question: DryRun) -> DryRunResult:
    """Build the model and a context with `no_alloc` and read the compute buffers' sizes. Raises OSError on failure."""
    for endpoint in question.rpc:
        ggml.add_rpc_server(endpoint)
    if question.stand_ins:
        start_stand_ins(ggml, question.stand_ins)
    log = _Log()
    model = _load_metadata(ggml, question)
    if not model:
        raise OSError(f"{question.path} could not be read: {' '.join(log.errors[-2:])}")
    context = ll.llama_init_from_model(model, _context_params(question))
    if not context:
        raise OSError(f"no context could be planned: {' '.join(log.errors[-2:])}")
    buffers = {facts.name: facts.buffer for _, facts in list_devices(ggml)}
    compute = [log.compute.pop(buffers[name], 0) for name in question.devices]
    if log.pipeline:
        surplus = _surplus(question, ll.llama_model_n_embd(model))
        compute[1:] = (max(0, size - surplus) for size in compute[1:])
    return DryRunResult(compute=tuple(compute), host_compute=sum(log.compute.values()), kv=log.kv)


def _surplus(question: DryRun, n_embd: int) -> int:
    """Bytes by which a dry run overstates the buffer of every device but the first of a pipeline.

    ggml_backend_sched_reserve_size forgets that llama.cpp pins the first norm of a layer to the layer's own device. So
    the norm stays on the device before, and both it and the hidden state are copied over, each as often as the pipeline
    is deep; a real load copies the hidden state alone.
    """
    tokens = min(question.cells, question.n_ubatch)
    tokens = -(-tokens // question.sequences) * question.sequences  # as llama_context::graph_reserve rounds them
    return _PIPELINE_COPIES * tokens * n_embd * 4


def _load_metadata(ggml: Ggml, question: DryRun) -> ll.llama_model_p | None:
    params = ll.llama_model_default_params()
    devices = (ctypes.c_void_p * (len(question.devices) + 1))(*(ggml.device_named(d) for d in question.devices), None)
    params.devices = ctypes.cast(devices, ctypes.c_void_p)
    params.n_gpu_layers = question.n_gpu_layers
    params.no_alloc = True
    params.load_mode = ll.LLAMA_LOAD_MODE_NONE
    if question.tensor_split:
        params.tensor_split = (ctypes.c_float * max(ll.llama_max_devices(), len(question.tensor_split)))(
            *question.tensor_split
        )
    overrides = (_Override * (len(question.tensor_overrides) + 1))()
    for i, (pattern, device) in enumerate(question.tensor_overrides):
        overrides[i].pattern = pattern.encode()
        overrides[i].buffer_type = ggml.buffer_type(ggml.device_named(device))
    if question.tensor_overrides:
        params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
    return ll.llama_model_load_from_file(question.path.encode(), params)


def _context_params(question: DryRun) -> ll.llama_context_params:
    params = ll.llama_context_default_params()
    params.n_ctx = question.cells
    params.n_batch = question.n_batch
    params.n_ubatch = question.n_ubatch
    params.n_seq_max = question.sequences
    params.kv_unified = question.unified
    params.type_k = params.type_v = KV_TYPES[question.kv_type]
    params.offload_kqv = question.offload_kv
    params.swa_full = False
    return params


if __name__ == "__main__":
    main()
