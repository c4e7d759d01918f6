# SPDX-License-Identifier: Apache-2.0
"""What a GGUF file (of anybody's making) says about itself, read by the parser that the enclave uses.

Only headers are read here; `model_files` reads and hashes everything.
"""

from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adyton_enclave.weights.sources import FileSource
from adyton_models.model_files import files_of
from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf import TensorInfo
from adyton_protocol.gguf_canonical import GgufModel, read_model

_MATRIX_DIMENSIONS: Final = 2
MOST_DEFAULT_N_CTX: Final = 4096
"""Where nobody says how many tokens to hold, a model gets what it was trained for, but no more than this."""
EMBEDDING: Final = "token_embd.weight"
OUTPUT: Final = "output.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model as its header describes it.

    Attributes:
        paths: Its files, in order.
        size_bytes: Of all files.
        model: Metadata and tensors of all files together.
    """

    paths: tuple[Path, ...]
    size_bytes: int
    model: GgufModel = field(repr=False)

    def text(self, key: str) -> str | None:
        """A string of the metadata."""
        value = self.model.metadata.get(key) or self.model.dropped.get(key)
        raw = None if value is None else value.text
        return None if raw is None else raw.decode("utf-8", "replace")

    def number(self, key: str, default: int = 0) -> int:
        """A whole number of the metadata, `default` where there is none."""
        value = self.model.metadata.get(key)
        number = None if value is None else value.number
        return int(number) if isinstance(number, int) else default

    def texts(self, key: str) -> tuple[bytes, ...] | None:
        """A list of strings of the metadata."""
        value = self.model.metadata.get(key)
        return None if value is None else value.texts

    def count(self, key: str) -> int | None:
        """The length of a list of the metadata."""
        value = self.model.metadata.get(key)
        return None if value is None else value.count

    def of_arch(self, key: str, default: int = 0) -> int:
        """A number of the architecture; of a list with one for each layer, the largest."""
        value = self.model.metadata.get(f"{self.architecture}.{key}")
        if value is not None and value.numbers:
            return int(max(value.numbers))
        return self.number(f"{self.architecture}.{key}", default)

    def has_arch_key(self, prefix: str) -> bool:
        """Whether any key of the architecture begins so."""
        return any(key.startswith(f"{self.architecture}.{prefix}") for key in self.model.metadata)

    @property
    def architecture(self) -> str:
        """`general.architecture`; empty without one."""
        return self.text("general.architecture") or ""

    @property
    def n_ctx_train(self) -> int:
        """Tokens that the model was trained for; 0 when it does not say."""
        return self.of_arch("context_length")

    @property
    def default_n_ctx(self) -> int:
        """Tokens of prompt and answer together, where nobody says."""
        return min(self.n_ctx_train or MOST_DEFAULT_N_CTX, MOST_DEFAULT_N_CTX)

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """All tensors by name."""
        return dict(self.model.tensors)

    @property
    def matrices(self) -> tuple[TensorInfo, ...]:
        """Tensors of at least two dimensions: what quantisation is about."""
        return tuple(t for t in self.model.tensors.values() if dimensions(t) >= _MATRIX_DIMENSIONS)

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(elements(tensor) for tensor in self.model.tensors.values())

    @property
    def weights_bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.size_bytes for tensor in self.model.tensors.values())

    @property
    def types(self) -> dict[str, int]:
        """Names of the types of all matrices and how many numbers each holds, most first."""
        counted: Counter[str] = Counter()
        for tensor in self.matrices:
            counted[tensor.type.name] += elements(tensor)
        return dict(counted.most_common())

    @property
    def tied(self) -> bool:
        """Whether the output matrix is the embedding matrix."""
        return OUTPUT not in self.model.tensors


def elements(tensor: TensorInfo) -> int:
    """Numbers in a tensor."""
    product = 1
    for extent in tensor.shape:
        product *= extent
    return product


def dimensions(tensor: TensorInfo) -> int:
    """Dimensions of a tensor without the last ones of extent 1."""
    return max((axis + 1 for axis, extent in enumerate(tensor.shape) if extent > 1), default=1)


def read_facts(path: Path) -> ModelFacts:
    """Read the headers of a model's files.

    Args:
        path: The file, or the first of several.

    Raises:
        ModelFileError: A file is missing, is no GGUF file, or breaks a rule of the format; the message says which.
    """
    try:
        paths = files_of(path)
        _check_there(paths)
        with ExitStack() as stack:
            sources = [stack.enter_context(closing(FileSource(str(each)))) for each in paths]
            model = read_model(sources)
            return ModelFacts(
                paths=paths, size_bytes=sum(source.size_bytes for source in sources), model=model
            )
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}", check=error.check) from error


def _check_there(paths: tuple[Path, ...]) -> None:
    missing = [each.name for each in paths if not each.is_file()]
    if missing:
        raise ModelFileError(
            f"of the {len(paths)} files of the model these are missing: {', '.join(missing)}", check="split"
        )
