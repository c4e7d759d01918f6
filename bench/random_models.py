# SPDX-License-Identifier: Apache-2.0
"""Make Llama-shaped GGUF files with random weights and a working tokenizer, for measurements of speed.

The shapes are those of small models in common use. Nothing is quantised: each tensor is drawn as blocks of its
format, scale and integers, straight to the file, so that a gigabyte takes seconds and little memory. Files go to
a cache outside the repository, named by everything that shapes them.

The tokenizer is a byte-level BPE whose tokens are runs of letters, made by rule: about three letters a token. The
output matrix is the embedding matrix. Answers run to their limit by construction: two channels of the residual
stream are read by nobody but the output matrix, written by nobody but the embedding, and give every control token
a logit far below all others.

Usage: ``python bench/random_models.py [NAME ...]``; without a name all are made.
"""

import argparse
import functools
import hashlib
import itertools
import json
import os
import string
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import gguf
import numpy as np
import numpy.typing as npt

from adyton_models.model_files import pin_of
from adyton_protocol.model_identity import CONTENT_VERSION, ModelPin

Format = Literal["q8_0", "q4_0"]
Blocks = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

FORMAT_VERSION: Final = 1
"""Part of the cached file's name; a change of what this module writes needs another."""

_BLOCK: Final = 32
"""Weights in a block of Q8_0 and of Q4_0."""
_BLOCK_BYTES: Final[dict[Format, int]] = {"q8_0": 34, "q4_0": 18}
_SPREAD: Final[dict[Format, float]] = {"q8_0": 73.3, "q4_0": 4.6}
"""Standard deviation of a block's integers, as :func:`_random_blocks` draws them."""
_CONTROLS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>")
_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_ROWS_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a model; head size is 64, as in the models that these shapes are taken from."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    context: int = 8192
    head: int = 64

    @property
    def parameters(self) -> int:
        """Weights, norms included."""
        attention = self.width * self.head * (2 * self.heads + 2 * self.kv_heads)
        layer = attention + 3 * self.width * self.inner + 2 * self.width
        return self.layers * layer + self.vocabulary * self.width + self.width


_SMALL: Final = {"width": 576, "heads": 9, "kv_heads": 3, "inner": 1536}
_LARGE: Final = {"width": 2048, "layers": 16, "heads": 32, "kv_heads": 8, "inner": 8192}
SHAPES: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "135m-49k": Shape(**_SMALL, layers=30, vocabulary=49_152),
        # Fewer layers, so that the larger embedding does not change the size.
        "135m-128k": Shape(**_SMALL, layers=17, vocabulary=128_256),
        "1b-49k": Shape(**_LARGE, vocabulary=49_152),
        "1b-128k": Shape(**_LARGE, vocabulary=128_256),
    }
)
FORMATS: Final[tuple[Format, ...]] = ("q8_0", "q4_0")
NAMES: Final = tuple(f"{shape}-{kind}" for shape in SHAPES for kind in FORMATS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomModel:
    """A file, what it holds, its parameters and its context in tokens."""

    name: str
    path: Path
    pin: ModelPin
    parameters: int
    n_ctx: int


def default_cache() -> Path:
    """Where the files are kept, honouring ``XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adyton" / "bench-models"


def random_model(name: str, cache: Path | None = None) -> RandomModel:
    """Return the model called ``name``, one of :data:`NAMES`, making its file where needed.

    Raises:
        KeyError: No such name.
    """
    shape_name, _, kind = name.rpartition("-")
    shape = SHAPES[shape_name]
    if kind not in FORMATS:
        raise KeyError(name)
    facts = json.dumps([FORMAT_VERSION, asdict(shape), kind], sort_keys=True)
    directory = cache or default_cache()
    path = directory / f"{name}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}.gguf"
    pin_path = path.with_suffix(f".pin-{CONTENT_VERSION}.json")
    if not pin_path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.part")
        write_model(partial, name, shape, kind)
        pin = pin_of(partial)
        partial.replace(path)
        pin_path.write_text(json.dumps(asdict(pin)) + "\n")
    return RandomModel(
        name=name,
        path=path,
        pin=ModelPin(**json.loads(pin_path.read_text())),
        parameters=shape.parameters,
        n_ctx=shape.context,
    )


# --- Tokenizer ----------------------------------------------------------------------------------------


def _byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in plain}
    table |= {byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in table)}
    return [table[byte] for byte in range(256)]


def _pairs() -> Iterator[tuple[str, str]]:
    """Merges in order of rank: all pairs of letters, those with a space before, then pairs of pairs."""
    letters = sorted(string.ascii_lowercase, key="etaoinshrdlcumwfgypbvkjxqz".index)
    doubles = [(a, b) for a, b in itertools.product(letters, repeat=2)]
    yield from doubles
    for letter in letters:
        yield "Ġ", letter
    for a, b in doubles:
        yield "Ġ" + a, b
    # Frequent letters come first on both sides, so that ordinary text meets these tokens.
    ranked = sorted(itertools.product(range(len(doubles)), repeat=2), key=lambda at: (sum(at), at))
    for first, second in ranked:
        yield "".join(doubles[first]), "".join(doubles[second])
        yield "Ġ" + "".join(doubles[first]), "".join(doubles[second])


@functools.cache
def _tokenizer(size: int) -> tuple[list[str], list[str]]:
    """Tokens and merges of a vocabulary of ``size``."""
    tokens = [*_CONTROLS, *_byte_characters()]
    merges: list[str] = []
    known = set(tokens)
    for first, second in _pairs():
        if len(tokens) == size:
            break
        if first + second not in known:
            known.add(first + second)
            tokens.append(first + second)
            merges.append(f"{first} {second}")
    return tokens, merges


# --- Tensors ------------------------------------------------------------------------------------------


def _random_blocks(
    rng: np.random.Generator, kind: Format, rows: int, columns: int, deviation: float
) -> Blocks:
    """Rows of a matrix in blocks, shape ``(rows, columns // 32, bytes of a block)``, values around zero."""
    count = rows * columns // _BLOCK
    size = _BLOCK_BYTES[kind]
    blocks = np.frombuffer(bytearray(rng.bytes(count * size)), dtype=np.uint8).reshape(count, size)
    scales = np.full(count, deviation / _SPREAD[kind], dtype=np.float16)
    if kind == "q8_0":
        # -128 is no value of this format.
        np.maximum(blocks.view(np.int8), -127, out=blocks.view(np.int8))
    else:
        # The nibbles reach from -8 to 7; half of the blocks are mirrored, so that the mean is zero.
        scales[rng.random(count) < 0.5] *= -1
    blocks[:, :2] = scales.view(np.uint8).reshape(count, 2)
    return blocks.reshape(rows, columns // _BLOCK, size)


def _reserved_block(kind: Format, first: int, second: int) -> Blocks:
    """One block that holds two numbers from -7 to 7, times four, and zeros."""
    block = np.zeros(_BLOCK_BYTES[kind], dtype=np.uint8)
    block[:2] = np.array([4.0], dtype=np.float16).view(np.uint8)
    if kind == "q8_0":
        block[2:4] = np.array([first, second], dtype=np.int8).view(np.uint8)
    else:
        # Weights 0 to 15 are the low nibbles, and 8 stands for zero.
        block[2:] = 0x88
        block[2], block[3] = 0x80 | (first + 8), 0x80 | (second + 8)
    return block


def _norm(width: int, reserved: tuple[float, float]) -> Floats:
    norm = np.ones(width, dtype=np.float32)
    # The rest of the reserved block is zero in every embedding, but layers write to it.
    norm[:_BLOCK] = 0.0
    norm[:2] = reserved
    return norm


class _File:
    """A GGUF whose tensors are announced first and then written in the same order."""

    def __init__(self, writer: gguf.GGUFWriter, shape: Shape, kind: Format) -> None:
        self._writer: Any = writer
        self._shape = shape
        self._kind: Format = kind
        self._quantization = {
            "q8_0": gguf.GGMLQuantizationType.Q8_0,
            "q4_0": gguf.GGMLQuantizationType.Q4_0,
        }[kind]
        self._rng = np.random.default_rng(0)

    def tensors(self) -> list[tuple[str, int, int]]:
        """Names, rows and columns; one row means a norm."""
        shape = self._shape
        queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
        found = [("token_embd.weight", shape.vocabulary, shape.width)]
        for layer in range(shape.layers):
            found += [
                (f"blk.{layer}.{name}.weight", rows, columns)
                for name, rows, columns in (
                    ("attn_norm", 1, shape.width),
                    ("attn_q", queries, shape.width),
                    ("attn_k", keys, shape.width),
                    ("attn_v", keys, shape.width),
                    ("attn_output", shape.width, queries),
                    ("ffn_norm", 1, shape.width),
                    ("ffn_gate", shape.inner, shape.width),
                    ("ffn_up", shape.inner, shape.width),
                    ("ffn_down", shape.width, shape.inner),
                )
            ]
        return [*found, ("output_norm.weight", 1, shape.width)]

    def announce(self) -> None:
        """Write the header, the metadata and the list of tensors."""
        size = _BLOCK_BYTES[self._kind]
        for name, rows, columns in self.tensors():
            if rows == 1:
                self._writer.add_tensor_info(name, (columns,), np.dtype(np.float32), columns * 4)
            else:
                row_bytes = columns // _BLOCK * size
                self._writer.add_tensor_info(
                    name, (rows, row_bytes), np.dtype(np.uint8), rows * row_bytes, self._quantization
                )
        self._writer.write_header_to_file()
        self._writer.write_kv_data_to_file()
        self._writer.write_ti_data_to_file()

    def write(self) -> None:
        """Draw and write every tensor."""
        for name, rows, columns in self.tensors():
            if rows == 1:
                last = name == "output_norm.weight"
                self._writer.write_tensor_data(_norm(columns, (1.0, -1.0) if last else (0.0, 0.0)))
                continue
            self._writer.write_tensor_data(self._matrix(name, rows, columns))

    def _matrix(self, name: str, rows: int, columns: int) -> Blocks:
        """All blocks of a matrix, shape ``(rows, bytes of a row)``."""
        embedding = name == "token_embd.weight"
        # Logits spread by about three, as those of trained models do; a layer's output by a tenth of that.
        deviation = 3.0 / columns**0.5 if embedding else 1.0 / columns**0.5
        row_bytes = columns // _BLOCK * _BLOCK_BYTES[self._kind]
        matrix = np.empty((rows, row_bytes), dtype=np.uint8)
        for begin in range(0, rows, _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, rows - begin)
            blocks = _random_blocks(self._rng, self._kind, count, columns, deviation)
            if embedding:
                # Products over the two channels, the second counting negatively: ordinary with control -28,
                # control with control 49 - 112, ordinary with ordinary 16; all times 16.
                blocks[:, 0] = _reserved_block(self._kind, 1, 0)
                if begin == 0:
                    blocks[: len(_CONTROLS), 0] = _reserved_block(self._kind, -1, 4)
            elif name.endswith(("attn_output.weight", "ffn_down.weight")) and begin == 0:
                blocks[:_BLOCK] = _silent(self._kind)
            matrix[begin : begin + count] = blocks.reshape(count, row_bytes)
        return matrix


def _silent(kind: Format) -> Blocks:
    """A block of zeros."""
    return _reserved_block(kind, 0, 0)


def write_model(path: Path, name: str, shape: Shape, kind: Format) -> None:
    """Write a file of any shape whose sizes are multiples of 32."""
    tokens, merges = _tokenizer(shape.vocabulary)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(name)
    writer.add_file_type(
        {"q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0}[kind]
    )
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.CONTROL] * len(_CONTROLS)
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * (len(tokens) - len(kinds)))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(False)
    writer.add_chat_template(_TEMPLATE)
    file = _File(writer, shape, kind)
    file.announce()
    file.write()
    writer.close()


def main() -> int:
    """Make the named models and print their paths."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where the files are kept")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    for name in arguments.names or NAMES:
        print(f"  {name}", end="\r", file=sys.stderr, flush=True)
        model = random_model(name, arguments.cache)
        print(f"{model.path}  {model.parameters / 1e6:.1f} M parameters")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
