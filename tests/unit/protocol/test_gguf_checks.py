# SPDX-License-Identifier: Apache-2.0
"""Well-formed headers whose numbers llama.cpp would die of are refused by name; real models pass."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_gguf import EditableModel, number, numbers, text, texts
from tiny_bert import make_tiny_bert
from tiny_gguf import make_tiny_gguf

from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf import Value
from adyton_protocol.gguf_canonical import read_model
from adyton_protocol.gguf_checks import check_model
from adyton_protocol.gguf_types import ValueType
from adyton_protocol.gguf_vocabulary import MAX_TEMPLATE_BYTES, NO_TOKEN
from adyton_protocol.random_access import BytesAccess

SHIPPED = sorted((Path(__file__).parents[3] / "models" / "shipped").glob("*.gguf"))
F32 = ValueType.FLOAT32
I32 = ValueType.INT32
U64 = ValueType.UINT64


def check(data: bytes) -> None:
    """Check a file."""
    check_model(read_model([BytesAccess(data)]))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small model file."""
    return make_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").path.read_bytes()


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small encoder."""
    return make_tiny_bert(tmp_path_factory.mktemp("gguf") / "bert.gguf").path.read_bytes()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_models_pass(path: Path) -> None:
    """What we ship is not refused."""
    check(path.read_bytes())


def test_made_models_pass(tiny: bytes, bert: bytes, tmp_path: Path) -> None:
    """Nor is anything that the tests make: other shapes, floating point, a sliding window, an encoder."""
    check(tiny)
    check(bert)
    check(make_tiny_gguf(tmp_path / "a", window=32).path.read_bytes())
    check(make_tiny_gguf(tmp_path / "b", heads=9, kv_heads=3, head=64, layers=1).path.read_bytes())
    check(make_tiny_gguf(tmp_path / "c", quantization=gguf.GGMLQuantizationType.F32).path.read_bytes())
    check(make_tiny_gguf(tmp_path / "d", template=None, controls=("<x>",), marks=("<y>",)).path.read_bytes())


# Key, value (None: without the key), check. The tiny model has 2 layers, 4 heads over 2, 275 tokens, a width of 64.
KEYS: dict[str, tuple[str, Value | None, str]] = {
    "no architecture": ("general.architecture", None, "key-type"),
    "architecture as number": ("general.architecture", number(1), "key-type"),
    "architecture with a percent sign": ("general.architecture", text("%n%n%s"), "key-type"),
    "empty architecture": ("general.architecture", text(""), "key-type"),
    "no layers given": ("llama.block_count", None, "hyperparameter"),
    "0 layers": ("llama.block_count", number(0), "hyperparameter"),
    "1 layer too few": ("llama.block_count", number(1), "hyperparameter"),
    "513 layers": ("llama.block_count", number(513), "hyperparameter"),
    "2**31 layers": ("llama.block_count", number(2**31), "hyperparameter"),
    "2**32 - 1 layers": ("llama.block_count", number(2**32 - 1), "hyperparameter"),
    "layers as text": ("llama.block_count", text("2"), "key-type"),
    "layers as uint64": ("llama.block_count", number(2, U64), "key-type"),
    "layers as list": ("llama.block_count", numbers([2]), "key-type"),
    "layers as float": ("llama.block_count", number(2.0, F32), "key-type"),
    "no width": ("llama.embedding_length", number(0), "hyperparameter"),
    "width of 2**32 - 1": ("llama.embedding_length", number(2**32 - 1), "hyperparameter"),
    "another width": ("llama.embedding_length", number(128), "hyperparameter"),
    "no context": ("llama.context_length", number(0), "hyperparameter"),
    "context of 2**31": ("llama.context_length", number(2**31), "hyperparameter"),
    "no heads": ("llama.attention.head_count", number(0), "hyperparameter"),
    "heads left out": ("llama.attention.head_count", None, "hyperparameter"),
    "2**31 heads": ("llama.attention.head_count", number(2**31), "hyperparameter"),
    "negative heads": ("llama.attention.head_count", numbers([-4, -4], I32), "hyperparameter"),
    "heads for one layer of two": ("llama.attention.head_count", numbers([4]), "hyperparameter"),
    "heads for many layers": ("llama.attention.head_count", numbers([4] * 600), "hyperparameter"),
    "heads as texts": ("llama.attention.head_count", texts(["4", "4"]), "key-type"),
    "no heads of keys": ("llama.attention.head_count_kv", number(0), "hyperparameter"),
    "3 heads of keys for 4": ("llama.attention.head_count_kv", number(3), "hyperparameter"),
    "8 heads of keys for 4": ("llama.attention.head_count_kv", number(8), "hyperparameter"),
    "3 of 4 in one layer": ("llama.attention.head_count_kv", numbers([2, 3]), "hyperparameter"),
    "keys of no length": ("llama.attention.key_length", number(0), "hyperparameter"),
    "keys of odd length": ("llama.attention.key_length", number(31), "hyperparameter"),
    "keys longer than values": ("llama.attention.key_length", number(64), "hyperparameter"),
    "keys of 2**31": ("llama.attention.key_length", number(2**31), "hyperparameter"),
    "values longer than keys": ("llama.attention.value_length", number(64), "hyperparameter"),
    "an odd number rotated": ("llama.rope.dimension_count", number(31), "hyperparameter"),
    "more rotated than there is": ("llama.rope.dimension_count", number(34), "hyperparameter"),
    "feed-forward of 2**32 - 1": ("llama.feed_forward_length", number(2**32 - 1), "hyperparameter"),
    "feed-forward as text": ("llama.feed_forward_length", text("x"), "key-type"),
    "epsilon NaN": ("llama.attention.layer_norm_rms_epsilon", number(math.nan, F32), "hyperparameter"),
    "epsilon negative": ("llama.attention.layer_norm_rms_epsilon", number(-1e-5, F32), "hyperparameter"),
    "epsilon infinite": ("llama.attention.layer_norm_rms_epsilon", number(math.inf, F32), "hyperparameter"),
    "epsilon of a million": ("llama.attention.layer_norm_rms_epsilon", number(1e6, F32), "hyperparameter"),
    "rope base NaN": ("llama.rope.freq_base", number(math.nan, F32), "hyperparameter"),
    "rope base 0": ("llama.rope.freq_base", number(0.0, F32), "hyperparameter"),
    "rope base negative": ("llama.rope.freq_base", number(-1e4, F32), "hyperparameter"),
    "rope scale infinite": ("llama.rope.scaling.factor", number(math.inf, F32), "hyperparameter"),
    "rope scale negative": ("llama.rope.scaling.factor", number(-2.0, F32), "hyperparameter"),
    "rope scaling unknown": ("llama.rope.scaling.type", text("bogus"), "hyperparameter"),
    "rope scaling as number": ("llama.rope.scaling.type", number(1), "hyperparameter"),
    "NaN nobody knows": ("llama.something", number(math.nan, F32), "hyperparameter"),
    "NaN in a list": ("llama.something", numbers([1.0, math.nan], F32), "hyperparameter"),
    "NaN as double": ("llama.something", number(math.nan, ValueType.FLOAT64), "hyperparameter"),
    "none rotated": ("llama.rope.dimension_count", number(0), "hyperparameter"),
    "a pattern without windows": ("llama.attention.sliding_window_pattern", number(1), "hyperparameter"),
    "an empty pattern": ("llama.attention.sliding_window_pattern", numbers([]), "hyperparameter"),
    "a pattern of zeros": ("llama.attention.sliding_window_pattern", numbers([0, 0]), "hyperparameter"),
    "a pattern of texts": ("llama.attention.sliding_window_pattern", texts(["a", "b"]), "key-type"),
    "a byte token that names none": ("tokenizer.ggml.token_type", numbers([6] * 275, I32), "tokenizer"),
    "2000 experts": ("llama.expert_count", number(2000), "hyperparameter"),
    "experts, none used": ("llama.expert_count", number(8), "hyperparameter"),
    "used, no experts": ("llama.expert_used_count", number(2), "hyperparameter"),
    "groups without experts": ("llama.expert_group_count", number(2), "hyperparameter"),
    "all layers predict ahead": ("llama.nextn_predict_layers", number(2), "hyperparameter"),
    "pooling unknown": ("llama.pooling_type", number(99), "hyperparameter"),
    "no tokenizer": ("tokenizer.ggml.model", None, "tokenizer"),
    "tokenizer unknown": ("tokenizer.ggml.model", text("bogus"), "tokenizer"),
    "tokenizer none, a billion dummies": ("tokenizer.ggml.model", text("none"), "tokenizer"),
    "tokenizer as number": ("tokenizer.ggml.model", number(1), "key-type"),
    "pre-tokenizer as number": ("tokenizer.ggml.pre", number(1), "key-type"),
    "SentencePiece without bytes": ("tokenizer.ggml.model", text("llama"), "tokenizer"),
    "no tokens": ("tokenizer.ggml.tokens", None, "key-type"),
    "empty list of tokens": ("tokenizer.ggml.tokens", texts([]), "tokenizer"),
    "tokens as numbers": ("tokenizer.ggml.tokens", numbers([1, 2]), "key-type"),
    "one token for all rows": ("tokenizer.ggml.tokens", texts(["a"]), "tokenizer"),
    "two tokens alike": ("tokenizer.ggml.tokens", texts(["a", "a"]), "tokenizer"),
    "alike up to a NUL": ("tokenizer.ggml.tokens", texts(["a\x00b", "a\x00c"]), "tokenizer"),
    "alike once empty ones are named": ("tokenizer.ggml.tokens", texts(["[EMPTY_1]", ""]), "tokenizer"),
    "merges as numbers": ("tokenizer.ggml.merges", numbers([1]), "key-type"),
    "types of too few tokens": ("tokenizer.ggml.token_type", numbers([1, 1], I32), "tokenizer"),
    "types unsigned": ("tokenizer.ggml.token_type", numbers([1] * 275), "key-type"),
    "types unknown": ("tokenizer.ggml.token_type", numbers([77] * 275, I32), "tokenizer"),
    "types as one number": ("tokenizer.ggml.token_type", number(1, I32), "key-type"),
    "scores of too few tokens": ("tokenizer.ggml.scores", numbers([0.0], F32), "tokenizer"),
    "scores as texts": ("tokenizer.ggml.scores", texts(["0"] * 275), "key-type"),
    "bos beyond the vocabulary": ("tokenizer.ggml.bos_token_id", number(275), "tokenizer"),
    "eos of 2**31": ("tokenizer.ggml.eos_token_id", number(2**31), "tokenizer"),
    "padding beyond the vocabulary": ("tokenizer.ggml.padding_token_id", number(9999), "tokenizer"),
    "bos signed": ("tokenizer.ggml.bos_token_id", number(1, I32), "key-type"),
    "bos as text": ("tokenizer.ggml.bos_token_id", text("<s>"), "key-type"),
    "add_bos as number": ("tokenizer.ggml.add_bos_token", number(1), "key-type"),
    "template as number": ("tokenizer.chat_template", number(1), "key-type"),
    "gigantic template": ("tokenizer.chat_template", text("x" * (MAX_TEMPLATE_BYTES + 1)), "template"),
    "gigantic second template": (
        "tokenizer.chat_template.tool_use",
        text("x" * (MAX_TEMPLATE_BYTES + 1)),
        "template",
    ),
    "gigantic among templates": (
        "tokenizer.chat_templates",
        texts(["x", "x" * (MAX_TEMPLATE_BYTES + 1)]),
        "template",
    ),
    "template that is no UTF-8": ("tokenizer.chat_template", text(b"{{ \xff }}"), "template"),
}


def edited(data: bytes, key: str, value: Value | None) -> bytes:
    """A file with a key changed or taken away."""
    model = EditableModel.parse(data)
    if value is None:
        model.metadata.pop(key)
    else:
        model.metadata[key] = value
    return model.to_bytes()


@pytest.mark.parametrize("name", KEYS)
def test_absurd_headers_are_refused_by_name(tiny: bytes, name: str) -> None:
    """Each would end the process that loads or uses it, or is what nobody can mean."""
    key, value, expected = KEYS[name]
    with pytest.raises(ModelFileError) as caught:
        check(edited(tiny, key, value))
    assert caught.value.check == expected


@pytest.mark.parametrize("missing", ["bos", "unknown", "seperator"])
def test_an_encoder_needs_its_tokens(bert: bytes, missing: str) -> None:
    """llama.cpp asserts at the first text that they exist."""
    with pytest.raises(ModelFileError) as caught:
        check(edited(bert, f"tokenizer.ggml.{missing}_token_id", number(NO_TOKEN)))
    assert caught.value.check == "tokenizer"


def test_a_token_that_is_to_be_added_exists(tiny: bytes) -> None:
    """Unless the file says that it is not added."""
    model = EditableModel.parse(tiny)
    few = ["a", "b", "c"]
    shape, kind, data = model.tensors["token_embd.weight"]
    model.tensors["token_embd.weight"] = ((64, 3), kind, data[: 3 * len(data) // shape[1]])
    model.metadata["tokenizer.ggml.tokens"] = texts(few)
    model.metadata["tokenizer.ggml.token_type"] = numbers([1] * 3, I32)
    for key in ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"):
        del model.metadata[key]
    model.metadata["tokenizer.ggml.add_bos_token"] = number(0, ValueType.BOOL)
    check(model.to_bytes())
    for name in ("bos", "eos"):
        with pytest.raises(ModelFileError) as caught:
            check(edited(model.to_bytes(), f"tokenizer.ggml.add_{name}_token", number(1, ValueType.BOOL)))
        assert caught.value.check == "tokenizer"


def _retyped(name: str, kind: int, size: Callable[[int], int]) -> Callable[[EditableModel], None]:
    def edit(model: EditableModel) -> None:
        shape, _, data = model.tensors[name]
        model.tensors[name] = (shape, kind, data[: size(len(data))])

    return edit


@pytest.mark.parametrize("kind", [1, 30])
def test_norms_are_in_floating_point_of_single_precision(tiny: bytes, kind: int) -> None:
    """Kernels abort on any other."""
    for name in ("output_norm.weight", "blk.1.attn_norm.weight"):
        model = EditableModel.parse(tiny)
        _retyped(name, kind, lambda size: size // 2)(model)
        with pytest.raises(ModelFileError) as caught:
            check(model.to_bytes())
        assert caught.value.check == "tensor-type"


def test_embeddings_fit_width_and_vocabulary(tiny: bytes) -> None:
    """A missing table, a transposed one, and one with a row too few."""
    for edit in (
        lambda model: model.tensors.pop("token_embd.weight"),
        lambda model: model.tensors.__setitem__("token_embd.weight", ((64, 1), 0, bytes(256))),
    ):
        model = EditableModel.parse(tiny)
        edit(model)
        with pytest.raises(ModelFileError) as caught:
            check(model.to_bytes())
        assert caught.value.check == "hyperparameter"


def test_a_tensor_of_no_layer_is_refused(tiny: bytes) -> None:
    """Layers that the header does not count."""
    model = EditableModel.parse(tiny)
    model.tensors["blk.999999999.attn_norm.weight"] = model.tensors["blk.0.attn_norm.weight"]
    with pytest.raises(ModelFileError) as caught:
        check(model.to_bytes())
    assert caught.value.check == "hyperparameter"


def test_mixtures_of_experts_have_sensible_numbers(tiny: bytes) -> None:
    """What real ones say passes; groups that do not divide, or are all used, do not."""
    model = EditableModel.parse(tiny)
    model.metadata |= {
        "llama.expert_count": number(8),
        "llama.expert_used_count": number(2),
        "llama.expert_group_count": number(4),
        "llama.expert_group_used_count": number(2),
    }
    check(model.to_bytes())
    for key, value in (
        ("expert_used_count", 9),
        ("expert_used_count", 0),
        ("expert_group_count", 3),
        ("expert_group_count", 8),
        ("expert_group_used_count", 0),
        ("expert_group_used_count", 4),
    ):
        with pytest.raises(ModelFileError):
            check(edited(model.to_bytes(), f"llama.{key}", number(value)))


@given(draw=st.data())
def test_any_value_under_any_known_key_is_fine_or_a_typed_error(tiny: bytes, draw: st.DataObject) -> None:
    """No value of any type makes the checks fail in another way."""
    model = EditableModel.parse(tiny)
    keys = sorted({*model.metadata, *(key for key, _, _ in KEYS.values())})
    value = draw.draw(
        st.one_of(
            st.builds(number, st.integers(0, 2**32 - 1)),
            st.builds(number, st.integers(-(2**31), 2**31 - 1), st.just(I32)),
            st.builds(number, st.integers(0, 2**64 - 1), st.just(U64)),
            st.builds(number, st.floats(width=32), st.just(F32)),
            st.builds(number, st.booleans(), st.just(ValueType.BOOL)),
            st.builds(text, st.text(st.characters(exclude_characters="\x00", codec="utf-8"), max_size=9)),
            st.builds(texts, st.lists(st.binary(max_size=4), max_size=4)),
            st.builds(numbers, st.lists(st.integers(0, 2**32 - 1), max_size=4)),
            st.builds(numbers, st.lists(st.floats(width=32), max_size=3), st.just(F32)),
        )
    )
    model.metadata[draw.draw(st.sampled_from(keys))] = value
    model.metadata.pop("general.alignment", None)
    with contextlib.suppress(ModelFileError):
        check(model.to_bytes())
