# SPDX-License-Identifier: Apache-2.0
"""Side-car heads: one or two linear layers from a hidden state to a score.

A head file is a GGUF without metadata that matters, whose tensors are called as in PyTorch's ``Sequential``:
``head.0.weight`` and ``head.0.bias``, and where there is a second layer behind a ReLU ``head.2.weight`` and
``head.2.bias``; F32 or F16, weights as (outputs, inputs). It is attacker-controlled until its digest was checked, and
read by our own parser only.

Every position is computed alone and without BLAS, so that a score does not depend on how many are computed at once, on
threads, or on where in memory a row stands.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from adyton_enclave.scoring.adapter import Activation
from adyton_enclave.scoring.calibration import sigmoid
from adyton_protocol.digests import Digest
from adyton_protocol.errors import AdapterError, ModelFileError
from adyton_protocol.gguf import GgufFile, TensorInfo, read_header
from adyton_protocol.random_access import BytesAccess

MAX_HEAD_BYTES: Final = 256 * 1024 * 1024
_TYPES: Final[dict[int, str]] = {0: "<f4", 1: "<f2"}
"""F32 and F16 by ggml's numbers."""
_OUTPUTS: Final[dict[Activation, int]] = {"sigmoid": 1, "softmax": 2}
_ONE_LAYER: Final = ("head.0.bias", "head.0.weight")
_TWO_LAYERS: Final = (*_ONE_LAYER, "head.2.bias", "head.2.weight")

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A linear layer: weight of shape (outputs, inputs), bias of shape (outputs,)."""

    weight: Array = field(repr=False)
    bias: Array = field(repr=False)

    def __call__(self, values: Array) -> Array:
        """Apply it to one vector."""
        # einsum's own loop: the order of its sums follows from the shapes alone.
        product: Array = np.einsum("ij,j->i", self.weight, values, optimize=False)
        return product + self.bias


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """A head that was read.

    Attributes:
        width: Length of the hidden states that it takes.
        digest: SHA-256 of the file.
    """

    layers: tuple[Layer, ...]
    activation: Activation
    width: int
    digest: Digest

    @property
    def n_weights(self) -> int:
        """Numbers in its matrices."""
        return sum(layer.weight.size for layer in self.layers)

    def score(self, hidden: Array) -> float:
        """The raw score of one hidden state, shape ``(width,)``."""
        values = self.layers[0](np.ascontiguousarray(hidden))
        for layer in self.layers[1:]:
            values = layer(np.maximum(values, np.float32(0)))
        if self.activation == "sigmoid":
            return sigmoid(float(values[0]))
        return sigmoid(float(values[1]) - float(values[0]))


def read_head(data: bytes, activation: Activation) -> Head:
    """Read a head file.

    Args:
        data: Attacker-controlled.
        activation: What the adapter says of its outputs.

    Raises:
        AdapterError: No GGUF, other tensors than a head has, or shapes that do not fit together.
    """
    if len(data) > MAX_HEAD_BYTES:
        raise AdapterError(f"the head file has {len(data)} bytes; at most {MAX_HEAD_BYTES} are allowed")
    try:
        file = read_header(BytesAccess(data))
    except ModelFileError as error:
        raise AdapterError(f"the head file is no usable GGUF: {error}") from error
    tensors = {tensor.name: tensor for tensor in file.tensors}
    if tuple(sorted(tensors)) not in {_ONE_LAYER, _TWO_LAYERS}:
        raise AdapterError("the head file holds other tensors than head.0 and head.2, weight and bias each")
    layers = tuple(
        Layer(
            weight=_array(data, file, tensors[f"head.{index}.weight"], 2),
            bias=_array(data, file, tensors[f"head.{index}.bias"], 1),
        )
        for index in range(0, len(tensors), 2)
    )
    width = layers[0].weight.shape[1]
    inputs = width
    for layer in layers:
        if layer.weight.shape != (len(layer.bias), inputs):
            raise AdapterError("the head's layers do not fit onto one another")
        inputs = len(layer.bias)
    if inputs != _OUTPUTS[activation]:
        raise AdapterError(
            f"the head has {inputs} outputs; an activation of {activation} needs {_OUTPUTS[activation]}"
        )
    return Head(
        layers=layers,
        activation=activation,
        width=width,
        digest=Digest("sha256:" + hashlib.sha256(data).hexdigest()),
    )


def _array(data: bytes, file: GgufFile, tensor: TensorInfo, dimensions: int) -> Array:
    kind = _TYPES.get(tensor.type.number)
    if kind is None or len(tensor.shape) != dimensions:
        raise AdapterError(f"{tensor.name} of the head file must be F32 or F16 with {dimensions} dimensions")
    begin = file.data_offset + tensor.offset
    flat = np.frombuffer(data[begin : begin + tensor.size_bytes], kind)
    array: Array = flat.reshape(tensor.shape[::-1]).astype(np.float32)
    if not np.isfinite(array).all():
        raise AdapterError(f"{tensor.name} of the head file holds something that is no number")
    return array
