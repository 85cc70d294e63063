"""The quantization types a model can be converted to, and which tensor gets which type."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from converter.errors import ConversionError
from converter.gguf_format import TensorType

if TYPE_CHECKING:
    from collections.abc import Mapping


class Quantization(Enum):
    """A model's quantization type: its number in `general.file_type` (llama.cpp's llama_ftype), its usual tensor type.

    The name is llama.cpp's: S, M and L mix types, giving the tensors that matter most more bits.
    """

    F32 = (0, TensorType.F32)
    F16 = (1, TensorType.F16)
    BF16 = (32, TensorType.BF16)
    Q8_0 = (7, TensorType.Q8_0)
    Q6_K = (18, TensorType.Q6_K)
    Q5_K_M = (17, TensorType.Q5_K)
    Q5_K_S = (16, TensorType.Q5_K)
    Q5_1 = (9, TensorType.Q5_1)
    Q5_0 = (8, TensorType.Q5_0)
    Q4_K_M = (15, TensorType.Q4_K)
    Q4_K_S = (14, TensorType.Q4_K)
    Q4_1 = (3, TensorType.Q4_1)
    Q4_0 = (2, TensorType.Q4_0)
    IQ4_NL = (25, TensorType.IQ4_NL)
    IQ4_XS = (30, TensorType.IQ4_XS)
    MXFP4_MOE = (38, TensorType.MXFP4)
    Q3_K_L = (13, TensorType.Q3_K)
    Q3_K_M = (12, TensorType.Q3_K)
    Q3_K_S = (11, TensorType.Q3_K)
    IQ3_M = (27, TensorType.IQ3_S)
    IQ3_S = (26, TensorType.IQ3_S)
    IQ3_XS = (22, TensorType.IQ3_S)
    IQ3_XXS = (23, TensorType.IQ3_XXS)
    Q2_K = (10, TensorType.Q2_K)
    Q2_K_S = (21, TensorType.Q2_K)
    Q2_0 = (41, TensorType.Q2_0)
    IQ2_M = (29, TensorType.IQ2_S)
    IQ2_S = (28, TensorType.IQ2_XS)
    IQ2_XS = (20, TensorType.IQ2_XS)
    IQ2_XXS = (19, TensorType.IQ2_XXS)
    TQ2_0 = (37, TensorType.TQ2_0)
    TQ1_0 = (36, TensorType.TQ1_0)
    IQ1_M = (31, TensorType.IQ1_M)
    IQ1_S = (24, TensorType.IQ1_S)
    Q1_0 = (40, TensorType.Q1_0)

    def __init__(self, file_type: int, tensor_type: TensorType) -> None:
        self.file_type = file_type
        self.tensor_type = tensor_type

    @property
    def is_uniform(self) -> bool:
        """Whether every matrix gets the same type, so that llama.cpp need not be asked for its mixture."""
        return self in (Quantization.F32, Quantization.F16, Quantization.BF16, Quantization.Q8_0)


def parse_quantization(name: str) -> Quantization:
    """The type of that name, in any case; Q3_K, Q4_K and Q5_K mean their M, as in llama.cpp.

    Raises:
        ConversionError: there is no such type; the sentence lists those there are.
    """
    upper = name.upper()
    upper = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}.get(upper, upper)
    if upper not in Quantization.__members__:
        names = ", ".join(Quantization.__members__)
        raise ConversionError(f"{name!r} is no quantization type; choose one of {names}.")
    return Quantization[upper]


def file_type_name(file_type: int) -> str:
    """The quantization's name for a file's `general.file_type`, or its number where the name is not known."""
    return next((q.name for q in Quantization if q.file_type == file_type), str(file_type))


@dataclass(frozen=True, slots=True)
class TypePlan:
    """Which type each tensor gets, by name, and how many got another than meant since their rows' length forbids it."""

    types: Mapping[str, TensorType]
    fallbacks: int


def keeps_f32(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor stays F32 at every quantization: llama.cpp computes with vectors, norms and biases in F32."""
    return len(shape) == 1 or name.endswith("_norm.weight") or not name.endswith(".weight")


def uniform_types(shapes: Mapping[str, tuple[int, ...]], target: TensorType) -> TypePlan:
    """All matrices of one type. Where a row is no multiple of its block size, F16 takes its place, as in llama.cpp."""
    types: dict[str, TensorType] = {}
    fallbacks = 0
    for name, shape in shapes.items():
        if keeps_f32(name, shape):
            types[name] = TensorType.F32
        elif shape[-1] % target.block_size:
            types[name] = TensorType.F16
            fallbacks += 1
        else:
            types[name] = target
    return TypePlan(types, fallbacks)


def needs_importance(name: str, tensor_type: TensorType, quantization: Quantization) -> bool:
    """Whether llama.cpp refuses to quantize this tensor without an importance matrix.

    The rule is that of llama-quant.cpp: the smallest types are useless without one, and Q2_K is when all of the
    model is Q2_K.
    """
    if name in ("token_embd.weight", "output.weight"):
        return False
    if tensor_type is TensorType.Q2_K:
        return quantization is Quantization.Q2_K_S
    return tensor_type in (
        TensorType.IQ3_XXS,
        TensorType.IQ2_XXS,
        TensorType.IQ2_XS,
        TensorType.IQ2_S,
        TensorType.IQ1_M,
        TensorType.IQ1_S,
    )
