# SPDX-License-Identifier: Apache-2.0
"""Types of GGUF: those of metadata values, and those of tensors with the sizes of their blocks.

Numbers are ggml's own (``enum gguf_type``, ``enum ggml_type``). Tensor types that no weights are stored in are left
out on purpose: intermediate ones (Q8_1, Q8_K), integers, doubles, and those that ggml has removed.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class ValueType(IntEnum):
    """Type of a metadata value."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


VALUE_BYTES: Final = {
    ValueType.UINT8: 1,
    ValueType.INT8: 1,
    ValueType.UINT16: 2,
    ValueType.INT16: 2,
    ValueType.UINT32: 4,
    ValueType.INT32: 4,
    ValueType.FLOAT32: 4,
    ValueType.BOOL: 1,
    ValueType.UINT64: 8,
    ValueType.INT64: 8,
    ValueType.FLOAT64: 8,
}
"""Bytes of one value; strings and arrays have no fixed size."""

STRUCT_FORMATS: Final = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}


@dataclass(frozen=True, slots=True)
class TensorType:
    """How the numbers of a tensor are stored.

    Attributes:
        number: In the file.
        name: As ggml writes it; people use capitals throughout.
        block_elements: Elements of a block; rows are whole blocks.
        block_bytes: Bytes of a block.
    """

    number: int
    name: str
    block_elements: int
    block_bytes: int


TENSOR_TYPES: Final = {
    kind.number: kind
    for kind in (
        TensorType(0, "f32", 1, 4),
        TensorType(1, "f16", 1, 2),
        TensorType(2, "q4_0", 32, 18),
        TensorType(3, "q4_1", 32, 20),
        TensorType(6, "q5_0", 32, 22),
        TensorType(7, "q5_1", 32, 24),
        TensorType(8, "q8_0", 32, 34),
        TensorType(10, "q2_K", 256, 84),
        TensorType(11, "q3_K", 256, 110),
        TensorType(12, "q4_K", 256, 144),
        TensorType(13, "q5_K", 256, 176),
        TensorType(14, "q6_K", 256, 210),
        TensorType(16, "iq2_xxs", 256, 66),
        TensorType(17, "iq2_xs", 256, 74),
        TensorType(18, "iq3_xxs", 256, 98),
        TensorType(19, "iq1_s", 256, 50),
        TensorType(20, "iq4_nl", 32, 18),
        TensorType(21, "iq3_s", 256, 110),
        TensorType(22, "iq2_s", 256, 82),
        TensorType(23, "iq4_xs", 256, 136),
        TensorType(29, "iq1_m", 256, 56),
        TensorType(30, "bf16", 1, 2),
        TensorType(34, "tq1_0", 256, 54),
        TensorType(35, "tq2_0", 256, 66),
        TensorType(39, "mxfp4", 32, 17),
        TensorType(40, "nvfp4", 64, 36),
        TensorType(41, "q1_0", 128, 18),
        TensorType(42, "q2_0", 64, 18),
    )
}
