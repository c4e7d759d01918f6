# SPDX-License-Identifier: Apache-2.0
"""Random edits of real model files, and those of them that no check refuses."""

import random  # noqa: TID251 - seeded, so that a failure can be repeated
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from raw_gguf import EditableModel, number, numbers, row_bytes, text, texts

from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf import Value, read_header
from adyton_protocol.gguf_canonical import read_model
from adyton_protocol.gguf_checks import check_model
from adyton_protocol.gguf_types import TENSOR_TYPES, ValueType
from adyton_protocol.random_access import BytesAccess

_WHOLE: Final = (
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    31,
    32,
    33,
    63,
    64,
    65,
    128,
    255,
    256,
    1000,
    2**16,
    2**31,
    2**32 - 1,
)
_REAL: Final = (0.0, -0.0, 1e-30, 1e-5, 0.5, 1.0, 2.0, 1e4, 1e30, -1.0, float("inf"), float("nan"))
_MORE_KEYS: Final = (
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "expert_count",
    "expert_used_count",
    "expert_weights_scale",
    "nextn_predict_layers",
    "pooling_type",
    "rope.freq_base",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.dimension_count",
    "rope.dimension_sections",
    "token_type_count",
    "decoder_block_count",
    "embedding_length_out",
    "vocab_size",
    "leading_dense_block_count",
)
_SPECIAL: Final = (
    "bos",
    "eos",
    "eot",
    "eom",
    "unknown",
    "seperator",
    "padding",
    "mask",
    "fim_pre",
    "fim_suf",
)


def _value(rng: random.Random) -> Value:
    kinds: tuple[Callable[[], Value], ...] = (
        lambda: number(rng.choice(_WHOLE)),
        lambda: number(rng.choice(_REAL), ValueType.FLOAT32),
        lambda: number(rng.random() < 0.5, ValueType.BOOL),
        lambda: text(rng.choice(["", "llama", "gpt2", "none", "linear", "yarn", "phi-3", "%s"])),
        lambda: numbers([rng.choice(_WHOLE) for _ in range(rng.randrange(5))]),
        lambda: numbers([rng.choice(_WHOLE) % 2**31 for _ in range(2)], ValueType.INT32),
        lambda: numbers([rng.choice(_REAL) for _ in range(rng.randrange(3))], ValueType.FLOAT32),
        lambda: texts([rng.choice(["", "a", "b c"]) for _ in range(rng.randrange(3))]),
    )
    return rng.choice(kinds)()


def _edit_key(model: EditableModel, rng: random.Random) -> str:
    arch = (model.metadata["general.architecture"].text or b"").decode()
    keys = [*model.metadata, *(f"{arch}.{key}" for key in _MORE_KEYS)]
    keys += [f"tokenizer.ggml.{name}_token_id" for name in _SPECIAL]
    key = rng.choice(keys)
    known = model.metadata.get(key)
    if known is not None and rng.random() < 0.15:
        del model.metadata[key]
        return f"without {key}"
    if known is not None and known.count is None and known.type is ValueType.UINT32 and rng.random() < 0.7:
        model.metadata[key] = number(rng.choice(_WHOLE))
    elif known is not None and known.count is None and known.type is ValueType.FLOAT32 and rng.random() < 0.7:
        model.metadata[key] = number(rng.choice(_REAL), ValueType.FLOAT32)
    else:
        model.metadata[key] = _value(rng)
    return f"{key} = {model.metadata[key].raw[:16]!r}"


def _edit_tokens(model: EditableModel, rng: random.Random) -> str:
    key = rng.choice(["tokenizer.ggml.tokens", "tokenizer.ggml.merges"])
    items = list((model.metadata[key].texts if key in model.metadata else None) or (b"a b",))
    at = rng.randrange(len(items))
    items[at] = rng.choice([b"", b" ", b"\xff\xfe", b"<0x41>", b"<0x", bytes(rng.randbytes(5)), b"x" * 5000])
    model.metadata[key] = texts(items)
    types = model.metadata.get("tokenizer.ggml.token_type")
    if types is not None and rng.random() < 0.5:
        kinds = [int(kind) for kind in types.numbers or ()]
        kinds[rng.randrange(len(kinds))] = rng.randrange(7)
        model.metadata["tokenizer.ggml.token_type"] = numbers(kinds, ValueType.INT32)
    return f"{key}[{at}] = {items[at][:16]!r}"


def _edit_tensor(model: EditableModel, rng: random.Random) -> str:
    name = rng.choice(list(model.tensors))
    shape, kind, data = model.tensors[name]
    match rng.randrange(5):
        case 0:
            del model.tensors[name]
            return f"without {name}"
        case 1:
            kind = rng.choice([k for k, t in TENSOR_TYPES.items() if shape[0] % t.block_elements == 0])
            data = (data * 8)[: row_bytes(shape, kind)]
        case 2:
            shape = tuple(reversed(shape)) if len(shape) > 1 and shape[1] % 32 == 0 else (*shape, 1)
        case 3:
            data = rng.randbytes(len(data))
        case _:
            other = rng.choice(list(model.tensors))
            shape, kind, data = model.tensors[other]
    model.tensors[name] = (shape, kind, data)
    return f"{name}: {shape} of type {kind}"


def _flip_bytes(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    end = read_header(BytesAccess(data)).data_offset
    edited = bytearray(data)
    places = []
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(end)
        new = rng.choice([rng.randbytes(1), struct.pack("<I", rng.choice(_WHOLE)), rng.randbytes(8)])
        edited[at : at + len(new)] = new
        places.append(at)
    return f"bytes at {places}", bytes(edited)


def mutants(bases: Sequence[bytes], seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Edit files at random ``count`` times; yield what was done and the file wherever our checks let it pass."""
    rng = random.Random(seed)
    for _ in range(count):
        base = rng.choice(bases)
        if rng.random() < 0.2:
            what, data = _flip_bytes(base, rng)
        else:
            model = EditableModel.parse(base)
            whats = []
            for _ in range(rng.choice([1, 1, 1, 2, 3])):
                if "general.architecture" not in model.metadata or not model.tensors:
                    break
                if model.metadata["general.architecture"].text is None:
                    break
                whats.append(
                    rng.choice([_edit_key, _edit_key, _edit_key, _edit_tokens, _edit_tensor])(model, rng)
                )
            what, data = "; ".join(whats), model.to_bytes()
        try:
            check_model(read_model([BytesAccess(data)]))
        except ModelFileError:
            continue
        yield what, data
