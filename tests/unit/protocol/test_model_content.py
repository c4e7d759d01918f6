# SPDX-License-Identifier: Apache-2.0
"""What a model's files hold, in parts that can be compared, and what a configuration pins of it."""

from dataclasses import asdict

import pytest
from raw_gguf import EditableModel, number, numbers, split_files, text, texts
from tiny_gguf import make_tiny_gguf

from adyton_protocol.digests import Digest
from adyton_protocol.errors import LocalProtocolError, ModelFileError
from adyton_protocol.gguf_canonical import read_model
from adyton_protocol.gguf_types import ValueType
from adyton_protocol.model_identity import (
    ModelContent,
    ModelPin,
    check_header,
    check_weights,
    model_content,
)
from adyton_protocol.random_access import BytesAccess
from adyton_protocol.weights_tree import hash_weights


def content_of(*files: bytes) -> ModelContent:
    """The content of a model."""
    sources = [BytesAccess(data) for data in files]
    model = read_model(sources)
    return model_content(model, hash_weights(model, sources).root())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small model file."""
    return make_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").path.read_bytes()


def moved(before: bytes, after: bytes) -> set[str]:
    """Which parts differ."""
    one, other = asdict(content_of(before)), asdict(content_of(after))
    assert (content_of(before).digest == content_of(after).digest) == (one == other)
    return {name for name in one if one[name] != other[name]}


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("tokenizer.ggml.tokens", texts(["a"]), {"tokenizer"}),
        ("tokenizer.ggml.bos_token_id", number(1), {"tokenizer"}),
        ("tokenizer.ggml.new", number(1), {"tokenizer"}),
        ("tokenizer.chat_template", text("{{ messages }}"), {"chat_template"}),
        ("tokenizer.chat_template.tool_use", text("{{ messages }}"), {"chat_template"}),
        ("llama.rope.freq_base", number(1e6, ValueType.FLOAT32), {"hyperparameters"}),
        ("llama.attention.head_count_kv", numbers([2, 2]), {"hyperparameters"}),
        ("general.name", text("phi-3"), {"hyperparameters"}),
        ("nobody.knows", text("this"), {"hyperparameters"}),
        ("general.license", text("MIT"), set()),
        ("split.count", number(1, ValueType.UINT16), set()),
    ],
)
def test_a_key_moves_its_own_part(tiny: bytes, key: str, value, parts: set[str]) -> None:
    """Tokenizer, template and the rest are told apart; what is neutral moves nothing."""
    model = EditableModel.parse(tiny)
    model.metadata[key] = value
    assert moved(tiny, model.to_bytes()) == parts


def test_the_type_of_a_value_counts(tiny: bytes) -> None:
    """The same number as another type is another model, and so is a list of one."""
    model = EditableModel.parse(tiny)
    digests = set()
    for value in (number(7), number(7, ValueType.INT32), number(7, ValueType.UINT64), numbers([7])):
        model.metadata["a.b"] = value
        digests.add(content_of(model.to_bytes()).hyperparameters)
    assert len(digests) == 4


def test_where_one_value_ends_and_the_next_key_begins_counts(tiny: bytes) -> None:
    """No two sets of keys are hashed as the same bytes."""
    model = EditableModel.parse(tiny)
    digests = set()
    for keys in ({"a": "bc", "d": ""}, {"a": "b", "cd": ""}, {"a": "bcd"}, {"a": "", "bcd": ""}):
        edited = EditableModel(dict(model.metadata), model.tensors)
        edited.metadata |= {key: text(value) for key, value in keys.items()}
        digests.add(content_of(edited.to_bytes()).hyperparameters)
    assert len(digests) == 4


def test_weights_and_quantisation_move(tiny: bytes) -> None:
    """A bit of a tensor moves the weights; another type moves the quantisation as well."""
    model = EditableModel.parse(tiny)
    shape, kind, data = model.tensors["output_norm.weight"]
    model.tensors["output_norm.weight"] = (shape, kind, bytes([data[0] ^ 1]) + data[1:])
    assert moved(tiny, model.to_bytes()) == {"weights"}
    model.tensors["output_norm.weight"] = (shape, 1, data[: len(data) // 2])
    assert moved(tiny, model.to_bytes()) == {"weights", "quantisation"}


def test_packaging_does_not_move_the_content(tiny: bytes) -> None:
    """Splits, order, alignment and padding."""
    model = EditableModel.parse(tiny)
    names = list(model.tensors)
    assert content_of(*split_files(model, [names[::2], names[1::2]])) == content_of(tiny)
    model.alignment, model.gap, model.tail, model.version = 64, b"\xff", b"tail", 2
    model.metadata["general.alignment"] = number(64)
    assert not moved(tiny, model.to_bytes(order=lambda name: name[::-1]))


def test_a_header_is_held_to_its_pin_before_a_tensor_is_read(tiny: bytes) -> None:
    """With the pinned weights, the header alone says whether the content can be the pinned one."""
    content = content_of(tiny)
    assert check_header(read_model([BytesAccess(tiny)]), content.pin) == content
    check_weights(content.weights, content.pin)
    edited = EditableModel.parse(tiny)
    edited.metadata["llama.context_length"] = number(7)
    other = Digest("sha256:" + "00" * 32)
    for data, pin in (
        (edited.to_bytes(), content.pin),
        (tiny, ModelPin(content=other, weights=content.weights)),
        (tiny, ModelPin(content=content.digest, weights=other)),
    ):
        with pytest.raises(ModelFileError) as caught:
            check_header(read_model([BytesAccess(data)]), pin)
        assert caught.value.check == "content"
    with pytest.raises(ModelFileError) as caught:
        check_weights(other, content.pin)
    assert caught.value.check == "weights"


@pytest.mark.parametrize("digest", ["", "ab" * 32, "sha256:" + "AB" * 32, "sha256:" + "ab" * 31])
def test_a_pin_holds_digests(digest: str) -> None:
    """A configuration cannot pin what no digest is equal to."""
    good = Digest("sha256:" + "00" * 32)
    for pin in ({"content": Digest(digest), "weights": good}, {"content": good, "weights": Digest(digest)}):
        with pytest.raises(LocalProtocolError):
            ModelPin(**pin)
