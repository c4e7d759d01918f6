# SPDX-License-Identifier: Apache-2.0
"""Whatever may change an answer moves the identity; what is listed as neutral moves neither identity nor logits."""

import hashlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import gguf
import numpy as np
import plain_llama
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_gguf import EditableModel, number, numbers, split_files, text, texts
from tiny_gguf import make_tiny_gguf

from adyton_enclave.engine.loaded_model import LoadedModel
from adyton_enclave.engine.request import SamplingParams
from adyton_enclave.engine.settings import EngineConfig, ModelSpec
from adyton_models.catalog import Sampling, identity_of
from adyton_models.model_files import pin_of
from adyton_protocol.digests import Digest, sha256_hex
from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf import Value, read_header
from adyton_protocol.gguf_canonical import NEUTRAL_KEYS, NEUTRAL_PREFIXES, neutral_reason, read_model
from adyton_protocol.gguf_types import VALUE_BYTES, ValueType
from adyton_protocol.model_identity import (
    CacheProfile,
    SamplingDefaults,
    ScorerParts,
    model_content,
    model_identity,
)
from adyton_protocol.random_access import BytesAccess
from adyton_protocol.weights_tree import hash_weights

N_CTX = 512
ADAPTER = ScorerParts(adapter=sha256_hex(b"adapter"), head=sha256_hex(b"head"))
Edit = Callable[[EditableModel], object]


def content(*files: bytes) -> Digest:
    """Digest of what files hold."""
    sources = [BytesAccess(data) for data in files]
    model = read_model(sources)
    return model_content(model, hash_weights(model, sources).root()).digest


def identity(
    *files: bytes,
    n_ctx: int = N_CTX,
    sampling: SamplingDefaults | None = None,
    cache: CacheProfile | None = None,
    scorer: ScorerParts | None = ADAPTER,
) -> Digest:
    """The identity of files as a scorer under a configuration."""
    return model_identity(
        content=content(*files),
        n_ctx=n_ctx,
        sampling=sampling or SamplingDefaults(),
        cache=cache or CacheProfile(),
        scorer=scorer,
    )


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file with every kind of key that llama.cpp reads of its sort."""
    path = make_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").path
    model = EditableModel.parse(path.read_bytes())
    count = len(model.metadata["tokenizer.ggml.tokens"].texts or ())
    model.metadata |= {
        "llama.rope.freq_base": number(10_000.0, ValueType.FLOAT32),
        "tokenizer.ggml.scores": numbers([0.0] * count, ValueType.FLOAT32),
        "tokenizer.ggml.padding_token_id": number(1),
        "tokenizer.ggml.add_eos_token": number(0, ValueType.BOOL),
        "tokenizer.chat_template.tool_use": text("{{ messages[0].content }}"),
        "general.sampling.temp": number(0.7, ValueType.FLOAT32),
        "general.license": text("Apache-2.0"),
        "nobody.knows.this": text("but it is hashed"),
    }
    path.write_bytes(model.to_bytes())
    return path


@pytest.fixture(scope="module")
def tiny(tiny_path: Path) -> bytes:
    """Its bytes."""
    return tiny_path.read_bytes()


def test_every_byte_of_every_tensor_is_hashed(tiny: bytes) -> None:
    """The first, a middle and the last byte of each tensor move the weights, and all to different roots."""
    base = EditableModel.parse(tiny)
    seen = {content(tiny)}
    for name, (shape, kind, data) in base.tensors.items():
        for at in (0, len(data) // 2, len(data) - 1):
            model = EditableModel.parse(tiny)
            model.tensors[name] = (shape, kind, data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :])
            seen.add(content(model.to_bytes()))
    assert len(seen) == 1 + 3 * len(base.tensors)


def _tensor(edit: Callable[[tuple[int, ...], int, bytes], tuple[tuple[int, ...], int, bytes]]) -> Edit:
    def apply(model: EditableModel) -> None:
        model.tensors["blk.0.ffn_up.weight"] = edit(*model.tensors["blk.0.ffn_up.weight"])

    return apply


def _renamed(model: EditableModel) -> None:
    model.tensors["blk.0.ffn_up.bias"] = model.tensors.pop("blk.0.ffn_norm.weight")


def _swapped(model: EditableModel) -> None:
    one, other = "blk.0.ffn_up.weight", "blk.0.ffn_gate.weight"
    model.tensors[one], model.tensors[other] = model.tensors[other], model.tensors[one]


def _item(key: str, at: int, value: object) -> Edit:
    """Replace an item of a list."""

    def apply(model: EditableModel) -> None:
        old = model.metadata[key]
        if old.type is ValueType.STRING:
            items = list(old.texts or ())
            items[at] = str(value).encode()
            model.metadata[key] = texts(items)
        else:
            plain = list(old.numbers or ())
            plain[at] = float(str(value)) if old.type is ValueType.FLOAT32 else int(str(value))
            model.metadata[key] = numbers(plain, old.type)

    return apply


def _set(key: str, value: Value) -> Edit:
    return lambda model: model.metadata.update({key: value})


def _swap_merges(model: EditableModel) -> None:
    merges = list(model.metadata["tokenizer.ggml.merges"].texts or ())
    model.metadata["tokenizer.ggml.merges"] = texts([merges[1], merges[0], *merges[2:]])


EDITS: dict[str, Edit] = {
    "type of a tensor": _tensor(lambda shape, _, data: (shape, 2, data[: len(data) // 34 * 18])),
    "type of a tensor, same size": lambda model: model.tensors.update(
        {"blk.0.attn_k.weight": (model.tensors["blk.0.attn_k.weight"][0], 8, bytes(34 * 128))}
    ),
    "shape of a tensor": _tensor(lambda shape, kind, data: (shape[::-1], kind, data)),
    "a dimension of one more": _tensor(lambda shape, kind, data: ((*shape, 1), kind, data)),
    "name of a tensor": _renamed,
    "two tensors swapped": _swapped,
    "a tensor less": lambda model: model.tensors.pop("output.weight"),
    "a tensor more": lambda model: model.tensors.update({"new.weight": ((8,), 0, bytes(32))}),
    "a token": _item("tokenizer.ggml.tokens", 270, "another"),
    "a merge": _item("tokenizer.ggml.merges", 3, "a b"),
    "order of merges": _swap_merges,
    "a score": _item("tokenizer.ggml.scores", 7, 1.0),
    "a token's type": _item("tokenizer.ggml.token_type", 7, 4),
    "the tokenizer": _set("tokenizer.ggml.model", text("t5")),
    "the pre-tokenizer": _set("tokenizer.ggml.pre", text("llama-bpe")),
    "beginning of text": _set("tokenizer.ggml.bos_token_id", number(3)),
    "end of text": _set("tokenizer.ggml.eos_token_id", number(3)),
    "end of turn": _set("tokenizer.ggml.eot_token_id", number(3)),
    "padding": _set("tokenizer.ggml.padding_token_id", number(3)),
    "whether a beginning is added": _set("tokenizer.ggml.add_bos_token", number(0, ValueType.BOOL)),
    "whether an end is added": _set("tokenizer.ggml.add_eos_token", number(1, ValueType.BOOL)),
    "the template": _set("tokenizer.chat_template", text("{{ messages[0].content }}")),
    "a blank in the template": lambda model: _set(
        "tokenizer.chat_template", text((model.metadata["tokenizer.chat_template"].text or b"") + b" ")
    )(model),
    "another template": _set("tokenizer.chat_template.tool_use", text("{{ tools }}")),
    "no template": lambda model: model.metadata.pop("tokenizer.chat_template"),
    "the architecture": _set("general.architecture", text("qwen2")),
    "the name, which llama.cpp reads": _set("general.name", text("phi-3")),
    "a sampling default of the file": _set("general.sampling.temp", number(0.8, ValueType.FLOAT32)),
    "a key that nobody knows": _set("nobody.knows.this", text("and it moves")),
    "a key more": _set("nobody.knows.that", number(1)),
    "a list instead of a number": _set("llama.attention.head_count_kv", numbers([2, 2])),
    "the type of a number": _set("llama.context_length", number(1024, ValueType.UINT64)),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_may_change_an_answer_moves_the_identity(tiny: bytes, name: str) -> None:
    """Tensors, tokenizer, template, metadata: each class of bytes."""
    model = EditableModel.parse(tiny)
    EDITS[name](model)
    assert identity(model.to_bytes()) != identity(tiny)


def test_every_key_of_a_file_counts_unless_it_is_listed(tiny: bytes) -> None:
    """Whatever key is taken away or changed, the identity moves, and never to the same value twice."""
    seen = [identity(tiny)]
    base = EditableModel.parse(tiny)
    for key, value in base.metadata.items():
        if neutral_reason(key) is not None:
            continue
        less = EditableModel.parse(tiny)
        del less.metadata[key]
        changed = EditableModel.parse(tiny)
        if value.type is ValueType.STRING and value.count is None:
            changed.metadata[key] = text((value.text or b"") + b"x")
        elif value.type is ValueType.STRING:
            changed.metadata[key] = texts([*(value.texts or ()), b"one more"])
        else:
            at = len(value.raw) - VALUE_BYTES[value.type]
            changed.metadata[key] = replace(
                value, raw=value.raw[:at] + bytes([value.raw[at] ^ 1]) + value.raw[at + 1 :]
            )
        seen += [identity(less.to_bytes()), identity(changed.to_bytes())]
    assert len(seen) > 40
    assert len(set(seen)) == len(seen)


def test_what_a_configuration_says_moves_the_identity(tiny: bytes) -> None:
    """Context, cache, sampling, adapter, head: each alone, each to a value of its own."""
    variants = [identity(tiny), identity(tiny, n_ctx=N_CTX + 1), identity(tiny, scorer=None)]
    variants += [
        identity(tiny, sampling=replace(SamplingDefaults(), **{member.name: value}))
        for member, value in zip(fields(SamplingDefaults), (0.81, 0.96, 41, 0.06), strict=True)
    ]
    variants += [
        identity(tiny, cache=replace(CacheProfile(), **change))
        for change in ({"kv_type_k": "q8_0"}, {"kv_type_v": "f16"}, {"flash_attention": False})
    ]
    other = sha256_hex(b"another")
    variants += [
        identity(tiny, scorer=change)
        for change in (
            replace(ADAPTER, adapter=other),
            replace(ADAPTER, head=other),
            replace(ADAPTER, head=None),
        )
    ]
    assert len(set(variants)) == len(variants) == 13


def _line_end(data: bytes, offset: int) -> int:
    """Where the line of a key that begins at ``offset`` ends."""
    length = int.from_bytes(data[offset : offset + 8], "little")
    start = offset + 8 + length
    kind = ValueType(int.from_bytes(data[start : start + 4], "little"))
    at = start + 4
    if kind is not ValueType.ARRAY:
        if kind is ValueType.STRING:
            return at + 8 + int.from_bytes(data[at : at + 8], "little")
        return at + VALUE_BYTES[kind]
    item = ValueType(int.from_bytes(data[at : at + 4], "little"))
    count = int.from_bytes(data[at + 4 : at + 12], "little")
    at += 12
    if item is not ValueType.STRING:
        return at + count * VALUE_BYTES[item]
    for _ in range(count):
        at += 8 + int.from_bytes(data[at : at + 8], "little")
    return at


def neutral_bytes(data: bytes) -> set[int]:
    """Places of a file that may be changed without a trace: values of neutral keys, padding, the version."""
    places = {4}
    at = 24
    for key in read_header(BytesAccess(data)).metadata:
        end = _line_end(data, at)
        if neutral_reason(key) is not None:
            places |= set(range(at, end))
        at = end
    file = read_header(BytesAccess(data))
    covered = [range(_table_end(data, at, len(file.tensors)))]
    covered += [
        range(file.data_offset + t.offset, file.data_offset + t.offset + t.size_bytes) for t in file.tensors
    ]
    return places | set(range(len(data))) - {place for part in covered for place in part}


def _table_end(data: bytes, at: int, tensors: int) -> int:
    for _ in range(tensors):
        at += 8 + int.from_bytes(data[at : at + 8], "little")
        at += 4 + 8 * int.from_bytes(data[at : at + 4], "little") + 12
    return at


@settings(max_examples=150, deadline=None)
@given(draw=st.data())
def test_any_byte_that_is_not_neutral_moves_the_content_or_breaks_the_file(
    tiny: bytes, draw: st.DataObject
) -> None:
    """Of the whole file, header and data, only listed places can be edited without a trace."""
    header = read_header(BytesAccess(tiny)).data_offset
    at = draw.draw(st.one_of(st.integers(0, header - 1), st.integers(0, len(tiny) - 1)))
    edited = bytearray(tiny)
    edited[at] ^= draw.draw(st.integers(1, 255))
    try:
        moved = content(bytes(edited)) != content(tiny)
    except ModelFileError:
        return
    assert moved or at in neutral_bytes(tiny)


def test_neutral_edits_move_neither_identity_nor_logits(tiny: bytes, tiny_path: Path, tmp_path: Path) -> None:
    """Every listed key with any value, other order, alignment, version, padding, splits: the same model. Plain
    llama.cpp, which sees all of it, computes the same bits.
    """
    model = EditableModel.parse(tiny)
    for key in NEUTRAL_KEYS:
        model.metadata[key] = text("whatever")
    for prefix in NEUTRAL_PREFIXES:
        model.metadata[prefix + "0.name"] = text("whatever")
    model.metadata |= {
        "general.alignment": number(256),
        "general.file_type": number(7),
        "general.quantization_version": number(77),
        "split.no": number(0, ValueType.UINT16),
        "split.count": number(1, ValueType.UINT16),
        "split.tensors.count": number(len(model.tensors), ValueType.INT32),
    }
    model.version, model.alignment, model.gap, model.tail = 2, 256, b"\x55", b"tail"
    path = tmp_path / "edited.gguf"
    path.write_bytes(model.to_bytes(order=lambda name: hashlib.sha256(name.encode()).digest()))
    assert identity(path.read_bytes()) == identity(tiny)
    assert np.array_equal(plain_llama.logits(path), plain_llama.logits(tiny_path))
    assert plain_llama.tokens(path, "<|user|>the man") == plain_llama.tokens(tiny_path, "<|user|>the man")
    names = list(EditableModel.parse(tiny).tensors)
    assert identity(*split_files(EditableModel.parse(tiny), [names[1::2], names[::2]])) == identity(tiny)


def test_one_bit_of_a_weight_changes_logits(tiny_path: Path, tmp_path: Path) -> None:
    """The comparison of logits above could have failed."""
    model = EditableModel.parse(tiny_path.read_bytes())
    shape, kind, data = model.tensors["output_norm.weight"]
    model.tensors["output_norm.weight"] = (shape, kind, data[:-1] + bytes([data[-1] ^ 0x40]))
    path = tmp_path / "edited.gguf"
    path.write_bytes(model.to_bytes())
    assert not np.array_equal(plain_llama.logits(path), plain_llama.logits(tiny_path))


def test_enclave_and_build_side_agree(tiny_path: Path) -> None:
    """What the enclave puts into its keyset is what ``adyton-models identity`` prints."""
    sampling = Sampling(temperature=0.6, top_k=20)
    spec = ModelSpec(
        name="m",
        path=str(tiny_path),
        pin=pin_of(tiny_path),
        n_ctx=N_CTX,
        sampling=SamplingParams(
            temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, min_p=sampling.min_p
        ),
    )
    loaded = LoadedModel(spec, EngineConfig(threads=1))
    try:
        assert loaded.identity == identity_of(spec.pin.content, N_CTX, sampling)
    finally:
        loaded.close()


def test_quantising_moves_the_identity(tmp_path: Path) -> None:
    """The same weights in another type are another model."""
    kinds = gguf.GGMLQuantizationType
    made = [
        make_tiny_gguf(tmp_path / f"{kind.name}.gguf", quantization=kind).path.read_bytes()
        for kind in (kinds.F32, kinds.F16, kinds.Q8_0, kinds.Q4_0)
    ]
    assert len({identity(data) for data in made}) == len(made)
