# SPDX-License-Identifier: Apache-2.0
"""The bounded parser of GGUF headers: what is well-formed is read right, everything else is refused by name."""

import contextlib
import ctypes
import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cpp import llama_cpp
from raw_gguf import (
    EditableModel,
    key_line,
    number,
    numbers,
    raw_file,
    string,
    tensor_line,
    text,
    texts,
    u32,
    u64,
)
from tiny_gguf import make_tiny_gguf

from adyton_protocol.errors import ConfigError, ModelFileError
from adyton_protocol.gguf import (
    MAX_ARRAY_ITEMS,
    MAX_HEADER_BYTES,
    MAX_KEYS,
    MAX_STRING_BYTES,
    MAX_TENSORS,
    GgufFile,
    read_header,
)
from adyton_protocol.gguf_types import TENSOR_TYPES, VALUE_BYTES, ValueType
from adyton_protocol.random_access import BytesAccess

SHIPPED = sorted((Path(__file__).parents[3] / "models" / "shipped").glob("*.gguf"))


class _Endless:
    """A source that claims a petabyte and counts what is read of it."""

    def __init__(self, beginning: bytes, filler: bytes = b"\x01") -> None:
        self._beginning = beginning
        self._filler = filler
        self.size_bytes = 1 << 50
        self.most_read = 0

    def read_into(self, offset: int, target: memoryview) -> None:
        self.most_read = max(self.most_read, offset + len(target))
        here = self._beginning[offset : offset + len(target)]
        target[: len(here)] = here
        target[len(here) :] = self._filler * (len(target) - len(here))


def parse(data: bytes) -> GgufFile:
    """The header of a file in memory."""
    return read_header(BytesAccess(data))


def refusal(data: bytes) -> str:
    """The check that refuses a file."""
    with pytest.raises(ModelFileError) as caught:
        parse(data)
    assert isinstance(caught.value, ConfigError)
    return caught.value.check


def _tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf").path.read_bytes()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small model file."""
    return _tiny(tmp_path_factory)


@pytest.mark.parametrize("path", [None, *SHIPPED], ids=lambda path: path.stem if path else "tiny")
def test_real_files_are_read_as_the_reference_reader_reads_them(path: Path | None, tmp_path: Path) -> None:
    """Keys, values, tensors, types, shapes, offsets agree with the gguf package."""
    path = path or make_tiny_gguf(tmp_path / "tiny.gguf").path
    reference = gguf.GGUFReader(str(path))
    file = parse(path.read_bytes())
    foreign = {name: field for name, field in reference.fields.items() if not name.startswith("GGUF.")}
    assert list(file.metadata) == list(foreign)
    for name, value in file.metadata.items():
        expected = foreign[name].contents()
        if value.count is None:
            assert (value.text.decode() if value.text is not None else value.number) == expected
        elif value.texts is not None:
            assert [item.decode() for item in value.texts] == expected
        else:
            assert value.numbers == tuple(expected)
    assert len(file.tensors) == len(reference.tensors)
    for ours, theirs in zip(file.tensors, reference.tensors, strict=True):
        assert (ours.name, ours.type.number) == (theirs.name, theirs.tensor_type)
        assert ours.shape == tuple(int(extent) for extent in theirs.shape)
        assert file.data_offset + ours.offset == theirs.data_offset
        assert ours.size_bytes == theirs.n_bytes


def test_tensor_types_are_those_of_ggml() -> None:
    """Names and block sizes are ggml's own, and nothing that ggml has removed is among them."""
    library = llama_cpp._lib
    for name, result in (
        ("ggml_type_name", ctypes.c_char_p),
        ("ggml_blck_size", ctypes.c_int64),
        ("ggml_type_size", ctypes.c_size_t),
    ):
        getattr(library, name).restype = result
    for kind in TENSOR_TYPES.values():
        assert library.ggml_type_name(kind.number).decode() == kind.name
        assert library.ggml_blck_size(kind.number) == kind.block_elements
        assert library.ggml_type_size(kind.number) == kind.block_bytes


def test_both_versions_mean_the_same(tiny: bytes) -> None:
    """Version 2 has the layout of version 3."""
    model = EditableModel.parse(tiny)
    model.version = 2
    assert parse(model.to_bytes()) == parse(tiny)


@pytest.mark.parametrize("alignment", [1, 8, 256, 65_536])
def test_other_alignments_are_obeyed(tiny: bytes, alignment: int) -> None:
    """Data section and tensors lie at multiples of what the file says."""
    model = EditableModel.parse(tiny)
    model.alignment = alignment
    model.metadata["general.alignment"] = number(alignment)
    file = parse(model.to_bytes())
    assert file.alignment == alignment
    assert file.data_offset % alignment == 0
    assert {tensor.name: tensor.size_bytes for tensor in file.tensors} == {
        name: len(data) for name, (_, _, data) in model.tensors.items()
    }


def _one(value: bytes) -> bytes:
    """A file with one key of a raw type and value."""
    return raw_file([key_line("a.b", value)])


def _tensor(*lines: bytes, data: bytes = bytes(4096)) -> bytes:
    return raw_file([], lines, data=data)


HOSTILE = {
    "empty": (b"", "magic"),
    "other magic": (raw_file(magic=b"GGML"), "magic"),
    "version 1": (raw_file(version=1), "version"),
    "version 4": (raw_file(version=4), "version"),
    "big-endian": (raw_file(version=0x0300_0000), "version"),
    "all counts at their highest": (raw_file(n_keys=2**64 - 1, n_tensors=2**64 - 1), "count"),
    "too many keys": (raw_file(n_keys=MAX_KEYS + 1), "count"),
    "too many tensors": (raw_file(n_tensors=MAX_TENSORS + 1), "count"),
    "keys that are not there": (raw_file(n_keys=MAX_KEYS), "truncated"),
    "tensors that are not there": (raw_file(n_tensors=MAX_TENSORS), "truncated"),
    "no name": (raw_file([key_line("", number(1))]), "name"),
    "long name": (raw_file([key_line("a" * 257, number(1))]), "name"),
    "name of 2**64 - 1 bytes": (raw_file([u64(2**64 - 1) + b"a" * 64]), "name"),
    "name with a NUL": (raw_file([key_line("general.name\x00x", number(1))]), "name"),
    "name with a blank": (raw_file([key_line("general name", number(1))]), "name"),
    "name beyond ASCII": (raw_file([key_line("généreux", number(1))]), "name"),
    "duplicate key": (raw_file([key_line("a", number(1)), key_line("a", number(2))]), "duplicate"),
    "unknown value type": (_one(u32(13) + u64(0)), "value-type"),
    "negative value type": (_one(u32(2**32 - 1) + u64(0)), "value-type"),
    "unknown item type": (_one(u32(9) + u32(77) + u64(1) + u64(0)), "value-type"),
    "text of 2**64 - 1 bytes": (_one(u32(8) + u64(2**64 - 1)), "string-length"),
    "text over the limit": (_one(u32(8) + u64(MAX_STRING_BYTES + 1)), "string-length"),
    "text beyond the file": (_one(u32(8) + u64(MAX_STRING_BYTES)), "truncated"),
    "text with a NUL": (raw_file([key_line("a", text("x\x00y"))]), "string-nul"),
    "array of arrays": (_one(u32(9) + u32(9) + u64(1) + u32(4) + u64(1) + u32(1)), "nesting"),
    "deep arrays": (_one(u32(9) + (u32(9) + u64(1)) * 1000 + u32(4) + u64(0)), "nesting"),
    "array of 2**64 - 1 numbers": (_one(u32(9) + u32(12) + u64(2**64 - 1)), "array-length"),
    "array over the limit": (_one(u32(9) + u32(0) + u64(MAX_ARRAY_ITEMS + 1)), "array-length"),
    "numbers beyond the file": (_one(u32(9) + u32(12) + u64(MAX_ARRAY_ITEMS)), "truncated"),
    "texts beyond the file": (_one(u32(9) + u32(8) + u64(MAX_ARRAY_ITEMS)), "truncated"),
    "long text among texts": (_one(u32(9) + u32(8) + u64(2) + string("a") + u64(2**63)), "string-length"),
    "boolean of two": (_one(u32(7) + b"\x02"), "boolean"),
    "array with a boolean of 255": (_one(u32(9) + u32(7) + u64(2) + b"\x01\xff"), "boolean"),
    "alignment of another type": (
        raw_file([key_line("general.alignment", number(32, ValueType.UINT64))]),
        "key-type",
    ),
    "alignment as text": (raw_file([key_line("general.alignment", text("32"))]), "key-type"),
    "alignment as array": (raw_file([key_line("general.alignment", numbers([32]))]), "key-type"),
    "alignment of zero": (raw_file([key_line("general.alignment", number(0))]), "alignment"),
    "alignment of 24": (raw_file([key_line("general.alignment", number(24))]), "alignment"),
    "alignment of 2**31": (raw_file([key_line("general.alignment", number(2**31))]), "alignment"),
    "tensor without a name": (_tensor(tensor_line("", [4])), "name"),
    "tensor with a long name": (_tensor(tensor_line("t" * 64, [4])), "name"),
    "tensor with a NUL in its name": (_tensor(tensor_line("a\x00", [4])), "name"),
    "tensor twice": (_tensor(tensor_line("t", [8]), tensor_line("t", [8], offset=32)), "duplicate"),
    "no dimensions": (_tensor(tensor_line("t", [])), "dimensions"),
    "five dimensions": (_tensor(tensor_line("t", [1] * 5)), "dimensions"),
    "2**32 - 1 dimensions": (_tensor(tensor_line("t", [4], n_dims=2**32 - 1)), "dimensions"),
    "an extent of zero": (_tensor(tensor_line("t", [4, 0])), "dimensions"),
    "an extent of 2**63": (_tensor(tensor_line("t", [2**63])), "dimensions"),
    "a product that wraps to zero": (_tensor(tensor_line("t", [2**32, 2**32])), "dimensions"),
    "a product that wraps to one": (_tensor(tensor_line("t", [2**32 + 1, 2**32 - 1, 2**0])), "dimensions"),
    "elements over the limit": (_tensor(tensor_line("t", [2**20, 2**20, 2])), "dimensions"),
    "half a block": (_tensor(tensor_line("t", [16], kind=8)), "dimensions"),
    "removed tensor type": (_tensor(tensor_line("t", [32], kind=4)), "tensor-type"),
    "unknown tensor type": (_tensor(tensor_line("t", [32], kind=43)), "tensor-type"),
    "negative tensor type": (_tensor(tensor_line("t", [32], kind=2**32 - 1)), "tensor-type"),
    "tensor of doubles": (_tensor(tensor_line("t", [32], kind=28)), "tensor-type"),
    "first tensor not at the beginning": (_tensor(tensor_line("t", [8], offset=32)), "offset"),
    "offset without alignment": (_tensor(tensor_line("a", [8]), tensor_line("b", [8], offset=33)), "offset"),
    "overlapping tensors": (_tensor(tensor_line("a", [16]), tensor_line("b", [8], offset=32)), "offset"),
    "gap between tensors": (_tensor(tensor_line("a", [8]), tensor_line("b", [8], offset=64)), "offset"),
    "offset of 2**64 - 32": (
        _tensor(tensor_line("a", [8]), tensor_line("b", [8], offset=2**64 - 32)),
        "offset",
    ),
    "offset before the data": (_tensor(tensor_line("t", [8], offset=2**63)), "offset"),
    "tensor beyond the file": (_tensor(tensor_line("t", [2048])), "truncated"),
    "data a byte short": (_tensor(tensor_line("t", [8]), data=bytes(31)), "truncated"),
    "a terabyte that is not there": (_tensor(tensor_line("t", [2**20, 2**18])), "truncated"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_by_name(name: str) -> None:
    """Each of these asks for something that no file may ask for, and one named check says so."""
    data, check = HOSTILE[name]
    assert refusal(data) == check


def test_every_truncation_of_a_header_is_refused(tiny: bytes) -> None:
    """A header that is cut off anywhere is truncated, and so are missing weights."""
    file = parse(tiny)
    for end in (*range(4, file.data_offset, 37), file.data_offset, len(tiny) - 64):
        assert refusal(tiny[:end]) == "truncated"


@pytest.mark.parametrize(
    ("beginning", "check", "most"),
    [
        (raw_file(n_keys=2**64 - 1), "count", 1 << 20),
        (raw_file([u64(2**60)], n_keys=1), "name", 1 << 20),
        (raw_file([key_line("a", u32(8) + u64(2**60))]), "string-length", 1 << 20),
        (raw_file([key_line("a", u32(9) + u32(4) + u64(2**60))]), "array-length", 1 << 20),
        (_tensor(tensor_line("t", [2**62])), "dimensions", 1 << 20),
    ],
)
def test_no_number_of_a_file_makes_the_parser_read_or_allocate(
    beginning: bytes, check: str, most: int
) -> None:
    """Behind a huge number may lie a huge file: nothing of it is read."""
    source = _Endless(beginning[:64] if check == "count" else beginning)
    with pytest.raises(ModelFileError) as caught:
        read_header(source)
    assert (caught.value.check, source.most_read <= most) == (check, True)


def test_a_header_without_end_is_given_up_at_the_limit() -> None:
    """Texts within their limits that go on for ever end where a header must end."""
    half = MAX_STRING_BYTES
    lines = [string(f"k{index}") + u32(8) + u64(half) for index in range(4)]
    # Every text is one byte more than there is left for four of them.
    source = _Sparse(lines, half)
    with pytest.raises(ModelFileError) as caught:
        read_header(source)
    assert caught.value.check == "header-size"
    assert source.most_read <= MAX_HEADER_BYTES


class _Sparse:
    """Keys with long texts, made up while they are read."""

    def __init__(self, lines: list[bytes], length: int) -> None:
        self.size_bytes = 1 << 50
        self.most_read = 0
        self._pieces = {0: b"GGUF" + u32(3) + u64(0) + u64(len(lines))}
        at = 24
        for line in lines:
            self._pieces[at] = line
            at += len(line) + length

    def read_into(self, offset: int, target: memoryview) -> None:
        self.most_read = max(self.most_read, offset + len(target))
        target[:] = b"x" * len(target)
        for at, piece in self._pieces.items():
            for index, byte in enumerate(piece):
                if 0 <= at + index - offset < len(target):
                    target[at + index - offset] = byte


names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
scalar_kinds = st.sampled_from(sorted(VALUE_BYTES))


@st.composite
def values(draw: st.DrawFn):
    """Any value, and what it is in Python."""
    if draw(st.booleans()):
        content = draw(st.text(st.characters(exclude_characters="\x00", codec="utf-8"), max_size=20))
        return (text(content), content.encode())
    if draw(st.booleans()):
        items = draw(st.lists(st.binary(max_size=8), max_size=5))
        return (texts(items), tuple(items))
    items = draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5))
    return (numbers(items, ValueType.INT32), tuple(items))


@given(metadata=st.dictionaries(names, values(), max_size=6), tail=st.binary(max_size=40))
def test_what_is_written_is_read(metadata: dict, tail: bytes) -> None:
    """Any keys and values come back; what follows the tensors is nobody's business."""
    metadata.pop("general.alignment", None)
    file = parse(raw_file([key_line(key, value) for key, (value, _) in metadata.items()]) + tail)
    assert {
        key: value.text
        if value.count is None
        else value.texts
        if value.type is ValueType.STRING
        else value.numbers
        for key, value in file.metadata.items()
    } == {key: expected for key, (_, expected) in metadata.items()}


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_header_or_a_typed_error(data: bytes) -> None:
    """Nothing but a typed error comes out of bytes that are no header."""
    with contextlib.suppress(ModelFileError):
        parse(b"GGUF" + u32(3) + data)


@settings(max_examples=200)
@given(draw=st.data())
def test_any_edit_of_a_real_file_is_a_header_or_a_typed_error(tiny: bytes, draw: st.DataObject) -> None:
    """Bytes of a real header replaced, inserted and removed: a header or a typed error."""
    end = parse(tiny).data_offset
    data = bytearray(tiny)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, end - 1))
        new = draw.draw(
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]).map(
                    lambda n: struct.pack("<Q", n)
                ),
            )
        )
        data[at : at + draw.draw(st.integers(0, 8))] = new
    try:
        file = parse(bytes(data))
    except ModelFileError:
        return
    assert all(file.data_offset + t.offset + t.size_bytes <= len(data) for t in file.tensors)
