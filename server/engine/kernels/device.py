"""An accelerator of ggml's in machine code: llama.cpp gives it the products that it supports, as it would to a BLAS.

Everything that llama.cpp calls while it computes is machine code, since that must wait for no Python thread. Like a
BLAS, the device works on memory of the CPU's, in the format in which weights are stored.
"""

# pyright: basic

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from llvmlite import ir

from server.engine.kernels import ggml
from server.engine.kernels.code import I1, I32, I64, LANES, POINTER, VOID, declare, define
from server.engine.kernels.formats import CHUNK, FORMATS
from server.engine.kernels.product import COUNTER, Job, Products
from server.engine.kernels.tiles import CHUNK_SIZE, PANEL
from server.offload.ggml import DEVICE_TYPES, DeviceProperties

if TYPE_CHECKING:
    from server.engine.kernels.code import Code, Value
    from server.engine.kernels.dots import Dots
    from server.engine.kernels.formats import Format

IMPORTS = (
    "GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads",
    "calloc", "free", "aligned_alloc", "memcpy", "memset", "strcmp",
    "ggml_backend_buft_is_host", "ggml_backend_cpu_buffer_type",
)  # fmt: skip
"""What the machine code calls: threads are those of the OpenMP library that ggml computes with, so as not to have two
teams of threads that get in each other's way."""
_ACCELERATOR = DEVICE_TYPES.index("accel")
_SET_THREADS = b"ggml_backend_set_n_threads\0"
"""What llama.cpp asks a registry for, to tell its backends how many threads to take."""
_ALIGNED = 64


class Limits(ctypes.Structure):
    """What the device takes: its context.

    Attributes:
        backend: what each of its backends begins as. device: where the device itself is. name: how all are called.
        most: columns of activations that it takes.
    """

    _fields_ = (
        ("backend", ggml.Backend),
        ("device", ctypes.c_void_p),
        ("name", ctypes.c_char * 16),
        ("most", ctypes.c_int64),
    )


class Work(ctypes.Structure):
    """A backend's context: its threads, its room for panels and activations, and the product that it computes."""

    _fields_ = (("threads", ctypes.c_int64), ("room", ctypes.c_void_p), ("size", ctypes.c_int64), ("job", Job))


def device_module(dots: Dots) -> ir.Module:
    """The machine code of the device, with all formats' products. Its functions have the names that ggml gives them."""
    module = ir.Module("kernels")
    formats = tuple(kind for kind in FORMATS if dots.takes(kind))
    products = Products(module, dots, formats)
    imported = _Imports(module)
    _define_supports_op(module, formats)
    _define_supports_buft(module, imported)
    _define_graph_compute(module, products, imported, dots.columns)
    _define_life(module, imported)
    _define_descriptions(module, imported)
    return module


class _Imports:
    """Functions from elsewhere that the device's code calls."""

    def __init__(self, module: ir.Module) -> None:
        self.parallel = declare(module, "GOMP_parallel", VOID, POINTER, POINTER, I32, I32)
        self.calloc = declare(module, "calloc", POINTER, I64, I64)
        self.free = declare(module, "free", VOID, POINTER)
        self.aligned_alloc = declare(module, "aligned_alloc", POINTER, I64, I64)
        self.memcpy = declare(module, "memcpy", POINTER, POINTER, POINTER, I64)
        self.memset = declare(module, "memset", POINTER, POINTER, I32, I64)
        self.strcmp = declare(module, "strcmp", I32, POINTER, POINTER)
        self.is_host = declare(module, "ggml_backend_buft_is_host", I1, POINTER)
        self.is_host.return_value.add_attribute("zeroext")
        self.cpu_buffer_type = declare(module, "ggml_backend_cpu_buffer_type", POINTER)


def _define_supports_op(module: ir.Module, formats: tuple[Format, ...]) -> None:
    """Writes bool supports_op(device, operation)."""
    function, code = define(module, "supports_op", I1, POINTER, POINTER)
    function.return_value.add_attribute("zeroext")
    device, operation = function.args
    product, other = (code.append_basic_block(name) for name in ("product", "other"))
    code.cbranch(_equal(code, code.field(operation, ggml.Tensor, "op"), ggml.operation("MUL_MAT")), product, other)
    code.position_at_end(other)
    code.ret(code.const(I1, 0))
    code.position_at_end(product)
    limits = code.field(device, ggml.Device, "context")
    weights, x = (code.field(operation, ggml.Tensor, "src", number) for number in range(2))
    k, rows = (code.field(weights, ggml.Tensor, "ne", number) for number in range(2))
    known = code.const(I1, 0)
    for kind in formats:
        blocks = code.udiv(k, code.const(I64, kind.block))
        in_a_row = _equal(code, code.field(weights, ggml.Tensor, "nb", 1), code.mul(blocks, code.const(I64, kind.size)))
        whole = _equal(code, code.urem(k, code.const(I64, kind.block)), 0)
        of_it = _equal(code, code.field(weights, ggml.Tensor, "type"), kind.number)
        known = code.or_(known, code.and_(of_it, code.and_(whole, in_a_row)))
    facts = [_equal(code, code.field(weights, ggml.Tensor, "ne", axis), 1) for axis in (2, 3)]
    facts += [_in_a_row(code, x, axis) for axis in (2, 3)]
    facts += [
        _equal(code, code.field(x, ggml.Tensor, "type"), ggml.F32),
        _equal(code, code.field(x, ggml.Tensor, "nb"), ctypes.sizeof(ctypes.c_float)),
        _equal(code, code.urem(rows, code.const(I64, LANES)), 0),
        code.icmp_signed("<=", _columns(code, x), code.field(limits, Limits, "most")),
    ]
    for fact in facts:
        known = code.and_(known, fact)
    code.ret(known)


def _define_supports_buft(module: ir.Module, imported: _Imports) -> None:
    """Writes bool supports_buft(device, buffer type)."""
    function, code = define(module, "supports_buft", I1, POINTER, POINTER)
    function.return_value.add_attribute("zeroext")
    code.ret(code.call(imported.is_host, [function.args[1]]))


def _define_graph_compute(module: ir.Module, products: Products, imported: _Imports, columns: int) -> None:
    """Writes ggml_status graph_compute(backend, graph). A tile has so many columns."""
    prepare = _define_prepare(module, imported, columns)
    function, code = define(module, "graph_compute", I32, POINTER, POINTER)
    backend, graph = function.args
    work = code.field(backend, ggml.Backend, "context")
    nodes = code.field(graph, ggml.Graph, "nodes")
    threads = code.trunc(code.field(work, Work, "threads"), I32)
    with code.loop(0, code.field(graph, ggml.Graph, "n_nodes")) as index:
        node = code.get(nodes, POINTER, code.mul(index, code.const(I64, 8)))
        with code.if_then(_is_to_be_computed(code, node)):
            with code.if_then(code.not_(code.call(prepare, [work, node]))):
                code.ret(code.const(I32, ggml.ALLOC_FAILED))
            done = code.append_basic_block("done")
            kind = code.field(code.field(node, ggml.Tensor, "src"), ggml.Tensor, "type")
            choice = code.switch(kind, done)
            for number, product in products.by_format.items():
                block = code.append_basic_block("format")
                choice.add_case(code.const(I64, number), block)
                code.position_at_end(block)
                code.call(imported.parallel, [product, code.at(work, Work.job.offset), threads, code.const(I32, 0)])
                code.branch(done)
            code.position_at_end(done)
    code.ret(code.const(I32, ggml.SUCCESS))


def _is_to_be_computed(code: Code, node: Value) -> Value:
    """Whether a node of a graph is a product with any columns: a piece of a prompt may want no logits at all."""
    flags = code.and_(code.field(node, ggml.Tensor, "flags"), code.const(I64, ggml.COMPUTE))
    is_product = _equal(code, code.field(node, ggml.Tensor, "op"), ggml.operation("MUL_MAT"))
    columns = code.icmp_signed(">", _columns(code, node), code.const(I64, 0))
    return code.and_(is_product, code.and_(columns, code.icmp_signed("!=", flags, code.const(I64, 0))))


def _define_prepare(module: ir.Module, imported: _Imports, columns: int) -> Value:
    """Writes bool prepare(Work, product), which sets the job; false where there is no memory for it.

    Args:
        columns: of a tile.
    """
    function, code = define(module, "prepare", I1, POINTER, POINTER)
    work, node = function.args
    weights, x = (code.field(node, ggml.Tensor, "src", number) for number in range(2))
    k, rows = (code.field(weights, ggml.Tensor, "ne", axis) for axis in range(2))
    n, threads = _columns(code, x), code.field(work, Work, "threads")
    groups, chunks = code.udiv(rows, code.const(I64, LANES)), code.udiv(k, code.const(I64, CHUNK))
    panels = code.mul(code.mul(chunks, code.const(I64, PANEL)), threads)
    counters = code.mul(threads, code.const(I64, COUNTER))
    last = code.add(n, code.const(I64, columns - 1))
    whole_tiles = code.sub(last, code.urem(last, code.const(I64, columns)))
    quantized = code.mul(code.mul(chunks, whole_tiles), code.const(I64, CHUNK_SIZE))
    needed = code.add(code.add(counters, panels), quantized)
    needed = code.and_(code.add(needed, code.const(I64, _ALIGNED - 1)), code.const(I64, -_ALIGNED))
    with code.if_then(code.icmp_signed("<", code.field(work, Work, "size"), needed)):
        code.call(imported.free, [code.field(work, Work, "room")])
        code.set_field(code.call(imported.aligned_alloc, [code.const(I64, _ALIGNED), needed]), work, Work, "room")
        code.set_field(needed, work, Work, "size")
    begin = code.field(work, Work, "room")
    there = code.icmp_unsigned("!=", code.ptrtoint(begin, I64), code.const(I64, 0))
    with code.if_then(code.not_(there)):
        code.set_field(0, work, Work, "size")
        code.ret(there)
    fields = {
        "weights": code.field(weights, ggml.Tensor, "data"), "stride": code.field(weights, ggml.Tensor, "nb", 1),
        "groups": groups, "k": k, "n": n,
        "x": code.field(x, ggml.Tensor, "data"), "x_stride": code.field(x, ggml.Tensor, "nb", 1),
        "y": code.field(node, ggml.Tensor, "data"), "y_stride": code.field(node, ggml.Tensor, "nb", 1),
        "taken": begin, "panels": code.at(begin, counters), "quantized": code.at(begin, code.add(counters, panels)),
    }  # fmt: skip
    code.call(imported.memset, [begin, code.const(I32, 0), counters])
    for name, value in fields.items():
        code.set_field(value, code.at(work, Work.job.offset), Job, name)
    code.ret(there)
    return function


def _define_life(module: ir.Module, imported: _Imports) -> None:
    """Writes init_backend(device, parameters), free_backend(backend) and set_n_threads(backend, threads)."""
    function, code = define(module, "init_backend", POINTER, POINTER, POINTER)
    limits = code.field(function.args[0], ggml.Device, "context")
    backend, work = (
        code.call(imported.calloc, [code.const(I64, 1), code.const(I64, ctypes.sizeof(struct))])
        for struct in (ggml.Backend, Work)
    )
    code.call(imported.memcpy, [backend, limits, code.const(I64, ctypes.sizeof(ggml.Backend))])
    code.set_field(1, work, Work, "threads")
    code.set_field(work, backend, ggml.Backend, "context")
    code.ret(backend)

    function, code = define(module, "free_backend", VOID, POINTER)
    (backend,) = function.args
    work = code.field(backend, ggml.Backend, "context")
    for memory in (code.field(work, Work, "room"), work, backend):
        code.call(imported.free, [memory])
    code.ret_void()

    function, code = define(module, "set_n_threads", VOID, POINTER, I32)
    work = code.field(function.args[0], ggml.Backend, "context")
    asked = code.sext(function.args[1], I64)
    one = code.const(I64, 1)
    code.set_field(code.select(code.icmp_signed(">", asked, one), asked, one), work, Work, "threads")
    code.ret_void()


def _define_descriptions(module: ir.Module, imported: _Imports) -> None:
    """What ggml asks of the registry, of the device, and of a backend."""
    function, code = define(module, "get_device_name", POINTER, POINTER)  # of a device
    code.ret(code.at(code.field(function.args[0], ggml.Device, "context"), Limits.name.offset))
    function, code = define(module, "get_backend_name", POINTER, POINTER)
    device = code.field(function.args[0], ggml.Backend, "device")
    code.ret(code.at(code.field(device, ggml.Device, "context"), Limits.name.offset))
    function, code = define(module, "get_registry_name", POINTER, POINTER)
    code.ret(code.at(code.field(function.args[0], ggml.Registry, "context"), Limits.name.offset))

    function, code = define(module, "get_memory", VOID, POINTER, POINTER, POINTER)
    for number in function.args[1:]:
        code.put(code.const(I64, 0), number)
    code.ret_void()
    function, code = define(module, "get_type", I32, POINTER)
    code.ret(code.const(I32, _ACCELERATOR))
    function, code = define(module, "get_props", VOID, POINTER, POINTER)
    device, props = function.args
    name = code.at(code.field(device, ggml.Device, "context"), Limits.name.offset)
    for offset in range(0, ctypes.sizeof(DeviceProperties), ctypes.sizeof(ctypes.c_int64)):
        code.put(code.const(I64, 0), props, offset)
    code.set_field(name, props, DeviceProperties, "name")
    code.set_field(name, props, DeviceProperties, "description")
    code.put(code.const(I32, _ACCELERATOR), props, DeviceProperties.type.offset)
    code.ret_void()
    function, code = define(module, "get_buffer_type", POINTER, POINTER)
    code.ret(code.call(imported.cpu_buffer_type, []))

    function, code = define(module, "get_device_count", I64, POINTER)
    code.ret(code.const(I64, 1))
    function, code = define(module, "get_device", POINTER, POINTER, I64)
    code.ret(code.field(code.field(function.args[0], ggml.Registry, "context"), Limits, "device"))
    function, code = define(module, "get_proc_address", POINTER, POINTER, POINTER)
    asked = ir.GlobalVariable(module, ir.ArrayType(ir.IntType(8), len(_SET_THREADS)), "set_threads_name")
    asked.initializer = ir.Constant(asked.value_type, bytearray(_SET_THREADS))  # pyright: ignore[reportAttributeAccessIssue]
    asked.global_constant, asked.linkage = True, "internal"
    same = _equal(code, code.sext(code.call(imported.strcmp, [function.args[1], asked]), I64), 0)
    code.ret(code.select(same, module.get_global("set_n_threads"), ir.Constant(POINTER, None)))


def _columns(code: Code, tensor: Value) -> Value:
    """Columns of activations, those of all sequences: recurrent models have an axis of these."""
    first, *others = (code.field(tensor, ggml.Tensor, "ne", axis) for axis in (1, 2, 3))
    for other in others:
        first = code.mul(first, other)
    return first


def _in_a_row(code: Code, tensor: Value, axis: int) -> Value:
    """Whether columns follow each other along an axis as they do along the one before."""
    length, before = (code.field(tensor, ggml.Tensor, "ne", which) for which in (axis, axis - 1))
    step, step_before = (code.field(tensor, ggml.Tensor, "nb", which) for which in (axis, axis - 1))
    return code.or_(_equal(code, length, 1), _equal(code, step, code.mul(before, step_before)))


def _equal(code: Code, value: Value, expected: Value) -> Value:
    return code.icmp_signed("==", value, code.const(value.type, expected) if isinstance(expected, int) else expected)
