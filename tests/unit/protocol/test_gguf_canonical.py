# SPDX-License-Identifier: Apache-2.0
"""The header that is loaded: one for all forms of a model, without what is neutral, and the same model to llama.cpp."""

from pathlib import Path

import gguf
import numpy as np
import plain_llama
import pytest
from raw_gguf import EditableModel, number, split_files, text
from tiny_bert import make_tiny_bert
from tiny_gguf import make_tiny_gguf

from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf import DEFAULT_ALIGNMENT, read_header
from adyton_protocol.gguf_canonical import (
    NEUTRAL_KEYS,
    NEUTRAL_PREFIXES,
    GgufModel,
    merge_splits,
    neutral_reason,
    split_count,
)
from adyton_protocol.gguf_types import ValueType
from adyton_protocol.random_access import BytesAccess

SHIPPED = sorted((Path(__file__).parents[3] / "models" / "shipped").glob("*.gguf"))
Q = gguf.GGMLQuantizationType


def merge(*files: bytes) -> GgufModel:
    """The model in some files."""
    return merge_splits([read_header(BytesAccess(data)) for data in files])


def canonical(*files: bytes) -> bytes:
    """The canonical file of the model in some files."""
    model = merge(*files)
    data = bytearray(model.size_bytes)
    data[: len(model.header)] = model.header
    for placement in model.placements:
        content = files[placement.source][placement.source_offset :][: placement.size_bytes]
        data[placement.offset : placement.offset + placement.size_bytes] = content
    return bytes(data)


def refusal(*files: bytes) -> str:
    """The check that refuses some files."""
    with pytest.raises(ModelFileError) as caught:
        merge(*files)
    return caught.value.check


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small model file."""
    return make_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").path.read_bytes()


@pytest.mark.parametrize("kind", [Q.F32, Q.F16, Q.Q8_0, Q.Q4_0, Q.Q5_1])
def test_llama_cpp_computes_the_same_from_the_canonical_file(kind: Q, tmp_path: Path) -> None:
    """Bit for bit the same logits, tokens and template, whatever the weights are stored in."""
    plain = make_tiny_gguf(tmp_path / "plain.gguf", quantization=kind).path
    ours = tmp_path / "ours.gguf"
    ours.write_bytes(canonical(plain.read_bytes()))
    assert np.array_equal(plain_llama.logits(ours), plain_llama.logits(plain))
    words = "<|user|>the man and an ox, naïvely\n<|end|>"
    assert plain_llama.tokens(ours, words) == plain_llama.tokens(plain, words)
    assert plain_llama.template(ours) == plain_llama.template(plain) is not None


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_llama_cpp_computes_the_same_from_shipped_models(path: Path, tmp_path: Path) -> None:
    """What we ship loses nothing on the way through the canonical form."""
    ours = tmp_path / "ours.gguf"
    ours.write_bytes(canonical(path.read_bytes()))
    assert np.array_equal(plain_llama.logits(ours), plain_llama.logits(path))
    assert plain_llama.tokens(ours, "How many pears?") == plain_llama.tokens(path, "How many pears?")


def test_other_architectures_and_shapes_pass_as_well(tmp_path: Path) -> None:
    """A model with a sliding window and one for embeddings are read and written."""
    window = make_tiny_gguf(tmp_path / "window.gguf", window=32).path
    ours = tmp_path / "ours.gguf"
    ours.write_bytes(canonical(window.read_bytes()))
    assert np.array_equal(plain_llama.logits(ours), plain_llama.logits(window))
    bert = make_tiny_bert(tmp_path / "bert.gguf").path
    assert canonical(canonical(bert.read_bytes())) == canonical(bert.read_bytes())


def test_the_canonical_form_of_a_canonical_file_is_itself(tiny: bytes) -> None:
    """Nothing is left to normalise."""
    assert canonical(canonical(tiny)) == canonical(tiny) != tiny


@pytest.mark.parametrize("alignment", [1, 32, 4096])
def test_packaging_leaves_no_trace(tiny: bytes, alignment: int) -> None:
    """Order, alignment, version, padding and what follows the tensors do not reach llama.cpp."""
    model = EditableModel.parse(tiny)
    model.version, model.alignment, model.gap, model.tail = 2, alignment, b"\xaa", b"more"
    model.metadata["general.alignment"] = number(alignment)
    assert canonical(model.to_bytes(order=lambda name: name[::-1])) == canonical(tiny)


def test_a_split_model_is_the_same_model(tiny: bytes) -> None:
    """However its tensors are dealt out to files, what is loaded is the same file."""
    model = EditableModel.parse(tiny)
    names = list(model.tensors)
    for deal in ([names], [names[:1], names[1:]], [[], names[::2], names[1::2]], [[n] for n in names]):
        files = split_files(model, deal)
        assert split_count(read_header(BytesAccess(files[0]))) == len(deal)
        assert canonical(*files) == canonical(tiny)


def test_split_files_that_are_not_one_model_are_refused(tiny: bytes) -> None:
    """Missing, doubled, swapped, foreign and contradicting parts."""
    model = EditableModel.parse(tiny)
    names = list(model.tensors)
    first, second, third = split_files(model, [names[:3], names[3:6], names[6:]])
    assert refusal() == "split"
    assert refusal(first) == "split"
    assert refusal(first, second) == "split"
    assert refusal(first, third, second) == "split"
    assert refusal(second, first, third) == "split"
    assert refusal(first, second, second) == "split"
    two = split_files(model, [names[:3], names[3:]])
    assert refusal(first, two[1], third) == "split"
    assert refusal(*split_files(model, [names[:3], names[2:]])) == "split"
    fewer = EditableModel.parse(second)
    fewer.tensors.popitem()
    assert refusal(first, fewer.to_bytes(), third) == "split"


def test_a_tensor_in_two_files_is_refused(tiny: bytes) -> None:
    """Even if the number of tensors is right."""
    model = EditableModel.parse(tiny)
    names = list(model.tensors)
    assert refusal(*split_files(model, [names[:3], [names[0], *names[4:]]])) == "duplicate"


@pytest.mark.parametrize(
    ("key", "value"), [("split.count", -1), ("split.no", -1), ("split.tensors.count", -5)]
)
def test_numbers_of_splits_are_whole(tiny: bytes, key: str, value: int) -> None:
    """Wrong types and negative numbers are refused by name."""
    model = EditableModel.parse(tiny)
    model.metadata["split.count"] = number(1, ValueType.UINT16)
    for wrong in (number(value, ValueType.INT32), text("1"), number(1, ValueType.BOOL)):
        model.metadata[key] = wrong
        assert refusal(model.to_bytes()) == "key-type"
    model.metadata[key] = number(60_000, ValueType.UINT16)
    assert refusal(model.to_bytes()) == "split"


def test_a_part_may_not_slip_in_another_meaning(tiny: bytes) -> None:
    """What may change an answer stands in the first file; labels may differ."""
    model = EditableModel.parse(tiny)
    names = list(model.tensors)
    first, second = split_files(model, [names[:3], names[3:]])
    other = EditableModel.parse(second)
    other.metadata["general.license"] = text("MIT")
    other.metadata["llama.context_length"] = model.metadata["llama.context_length"]
    assert canonical(first, other.to_bytes()) == canonical(tiny)
    other.metadata["llama.context_length"] = number(77)
    assert refusal(first, other.to_bytes()) == "split"


def test_only_listed_keys_are_dropped(tiny: bytes) -> None:
    """Everything else is kept, known or not."""
    model = EditableModel.parse(tiny)
    plain = canonical(tiny)
    for key in NEUTRAL_KEYS:
        if not key.startswith(("split.", "general.alignment")):
            model.metadata[key] = text("anything")
    for prefix in NEUTRAL_PREFIXES:
        model.metadata[f"{prefix}0.name"] = text("anything")
    assert canonical(model.to_bytes()) == plain
    for key in ("general.name", "general.author.x", "unknown", "general.sampling.temp", "general.typ"):
        assert neutral_reason(key) is None
        edited = EditableModel.parse(tiny)
        edited.metadata[key] = text("anything else")
        assert canonical(edited.to_bytes()) != plain


def test_the_canonical_header_is_read_by_the_reference_reader(tiny: bytes, tmp_path: Path) -> None:
    """Names in order, aligned, and every tensor where it says."""
    path = tmp_path / "ours.gguf"
    path.write_bytes(canonical(tiny))
    reader = gguf.GGUFReader(str(path))
    placements = merge(tiny).placements
    assert [t.name for t in reader.tensors] == sorted(t.name for t in reader.tensors)
    assert [t.data_offset for t in reader.tensors] == [p.offset for p in placements]
    assert all(p.offset % DEFAULT_ALIGNMENT == 0 for p in placements)
