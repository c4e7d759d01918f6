# SPDX-License-Identifier: Apache-2.0
"""Model files on their way into the enclave: clear, split and sealed ones are one model, and attacks are named."""

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_gguf import EditableModel, split_files
from sealed_files import TEST_KEY, pin_of_files, seal_files, sealed_pieces, write_all
from tiny_gguf import make_tiny_gguf

from adyton_enclave.weights.model_file import ModelFile, sealed_header
from adyton_enclave.weights.pipeline import BLOCK_BYTES, MAX_BLOCKS, Block, Pipeline
from adyton_enclave.weights.stream import BUFFER_BYTES, CookieStream
from adyton_enclave.weights.terms import SealedTerms
from adyton_protocol.errors import (
    ConfigError,
    ModelFileError,
    SealedModelAltered,
    SealedModelError,
    SealedModelMalformed,
    SealedModelMismatch,
    SealedModelRolledBack,
    SealedModelTruncated,
    WrongModelKey,
)
from adyton_protocol.gguf import read_header
from adyton_protocol.gguf_canonical import GgufModel, merge_splits
from adyton_protocol.model_identity import ModelPin
from adyton_protocol.random_access import BytesAccess
from adyton_protocol.sealed_model import DEFAULT_CHUNK_BYTES, ModelKey
from adyton_protocol.weights_tree import WeightsTree

_LIBC = ctypes.CDLL(None)
_LIBC.fread.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
_LIBC.fread.restype = ctypes.c_size_t
_LIBC.fseek.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_int]
_LIBC.ftell.argtypes = [ctypes.c_void_p]
_LIBC.ftell.restype = ctypes.c_long
_LIBC.fwrite.argtypes = _LIBC.fread.argtypes
_LIBC.fwrite.restype = ctypes.c_size_t

KEY_ID = ModelKey(TEST_KEY).key_id
TERMS = SealedTerms(key_id=KEY_ID)


class Tiny:
    """A model whose largest tensors are of several blocks, in every packing."""

    def __init__(self, directory: Path) -> None:
        path = directory / "tiny.gguf"
        make_tiny_gguf(path, width=256, more_tokens=16_000, layers=2)
        self.clear = path.read_bytes()
        model = EditableModel.parse(self.clear)
        names = list(model.tensors)
        self.parts = split_files(model, [names[:3], names[3:9], names[9:]])
        self.pin = pin_of_files(self.clear)
        self.model: GgufModel = merge_splits([read_header(BytesAccess(self.clear))])
        image = bytearray(self.model.size_bytes)
        image[: len(self.model.header)] = self.model.header
        for each in self.model.placements:
            image[each.offset : each.offset + each.size_bytes] = self.clear[each.source_offset :][
                : each.size_bytes
            ]
        self.image = bytes(image)
        self.sealed = seal_files(self.clear)
        self.sealed_parts = seal_files(*self.parts, chunk_bytes=DEFAULT_CHUNK_BYTES)
        self.packings: dict[str, list[Path]] = {
            "clear": [path],
            "split": write_all(directory, self.parts),
            "sealed": [directory / "one.sealed"],
            "sealed-split": [directory / "parts.sealed"],
        }
        self.packings["sealed"][0].write_bytes(self.sealed)
        self.packings["sealed-split"][0].write_bytes(self.sealed_parts)

    def open(self, packing: str) -> ModelFile:
        """The model in one of its packings."""
        return open_files(self.packings[packing], self.pin, sealed=packing.startswith("sealed"))


def open_files(paths: Sequence[Path], pin: ModelPin, *, sealed: bool, threads: int = 2) -> ModelFile:
    """Open as the enclave does."""
    return ModelFile.open(
        [str(path) for path in paths],
        pin,
        key=ModelKey(TEST_KEY) if sealed else None,
        terms=TERMS if sealed else None,
        threads=threads,
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The model, made once."""
    return Tiny(tmp_path_factory.mktemp("weights"))


def fread(stream: CookieStream, count: int) -> bytes:
    """Read through the C library."""
    buffer = ctypes.create_string_buffer(count or 1)
    length = _LIBC.fread(buffer, 1, count, stream.pointer)
    return buffer.raw[:length]


PACKINGS = ("clear", "split", "sealed", "sealed-split")

# --- One model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_is_the_same_file_to_c(tiny: Tiny, packing: str) -> None:
    """Header and tensors, as llama.cpp reads them: the same bytes, and the pinned weights."""
    with tiny.open(packing) as file, CookieStream(file) as stream:
        assert _LIBC.fseek(stream.pointer, 0, os.SEEK_END) == 0
        assert _LIBC.ftell(stream.pointer) == len(tiny.image)
        assert _LIBC.fseek(stream.pointer, 0, os.SEEK_SET) == 0
        assert fread(stream, len(tiny.image)) == tiny.image
        stream.check()
        file.finish()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packing=st.sampled_from(PACKINGS), order=st.data())
def test_tensors_may_be_read_in_any_order_and_again(tiny: Tiny, packing: str, order: st.DataObject) -> None:
    """llama.cpp seeks to tensors in its own order; some it reads twice, some never."""
    placements = order.draw(st.lists(st.sampled_from(tiny.model.placements), min_size=1, max_size=12))
    with tiny.open(packing) as file, CookieStream(file) as stream:
        for placement in placements:
            assert _LIBC.fseek(stream.pointer, placement.offset, os.SEEK_SET) == 0
            assert _LIBC.ftell(stream.pointer) == placement.offset
            count = order.draw(st.integers(1, placement.size_bytes))
            assert fread(stream, count) == tiny.image[placement.offset :][:count]
        stream.check()
        file.finish()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, 1 << 23), count=st.integers(0, 300_000))
def test_the_stream_reads_from_anywhere(tiny: Tiny, offset: int, count: int) -> None:
    """From within a tensor, or from padding, as well; only a block boundary within a tensor is nobody's beginning."""
    offset %= len(tiny.image)
    with tiny.open("clear") as file, CookieStream(file) as stream:
        expected = tiny.image[offset : offset + count]
        if offset % BUFFER_BYTES == 0 and not file.begins_at(offset):
            expected = b""
        assert _LIBC.fseek(stream.pointer, offset, os.SEEK_SET) == 0
        assert fread(stream, count) == expected
        assert _LIBC.fseek(stream.pointer, -1, os.SEEK_SET) != 0
        stream.check()


def test_the_stream_cannot_be_written_and_lets_go(tiny: Tiny) -> None:
    """Closing twice is fine, and the pointer is gone."""
    with tiny.open("clear") as file:
        stream = CookieStream(file)
        assert _LIBC.fwrite(b"xyz", 1, 3, stream.pointer) == 0
        stream.close()
        stream.close()
        with pytest.raises(ValueError, match="closed"):
            _ = stream.pointer


def test_a_large_read_takes_few_calls(tiny: Tiny) -> None:
    """A call into Python for each mebibyte, not for each page."""

    class Counting:
        def __init__(self, file: ModelFile) -> None:
            self.file, self.calls, self.size_bytes = file, 0, file.size_bytes

        def begins_at(self, position: int) -> bool:
            return self.file.begins_at(position)

        def piece(self, position: int, most: int) -> memoryview:
            self.calls += 1
            return self.file.piece(position, most)

    largest = max(tiny.model.placements, key=lambda placement: placement.size_bytes)
    with tiny.open("clear") as file:
        counting = Counting(file)
        with CookieStream(counting) as stream:
            assert _LIBC.fseek(stream.pointer, largest.offset, os.SEEK_SET) == 0
            assert len(fread(stream, largest.size_bytes)) == largest.size_bytes
            assert counting.calls <= largest.size_bytes // BUFFER_BYTES + 2


# --- Memory ------------------------------------------------------------------------------------------------


def test_few_blocks_exist_however_much_is_read_and_all_are_wiped(tiny: Tiny) -> None:
    """Reading in an order that defeats every guess takes no more buffers, and closing overwrites them."""
    tree = WeightsTree(placement.tensor for placement in tiny.model.placements)
    pipeline = Pipeline(tiny.model.placements, [BytesAccess(tiny.clear)], tree, threads=2)
    numbers = [*range(len(tiny.model.placements))]
    for number in [*numbers[::-1], *numbers[::3], *numbers]:
        placement = tiny.model.placements[number]
        for index in range(-(-placement.size_bytes // BLOCK_BYTES)):
            begin = placement.offset + index * BLOCK_BYTES
            end = min(begin + BLOCK_BYTES, placement.offset + placement.size_bytes)
            assert pipeline.get(Block(number, index)) == tiny.image[begin:end]
        assert len(pipeline._made) <= MAX_BLOCKS
    buffers = list(pipeline._made)
    assert any(any(buffer) for buffer in buffers)
    pipeline.close()
    pipeline.close()
    assert not any(any(buffer) for buffer in buffers)


# --- Attacks -----------------------------------------------------------------------------------------------


class Swapping:
    """A file that the host exchanges after some reads."""

    def __init__(self, first: bytes, then: bytes, reads: int) -> None:
        self._first, self._then, self.reads_left = BytesAccess(first), BytesAccess(then), reads
        self.size_bytes = len(first)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Each read may see another file."""
        file = self._first if self.reads_left > 0 else self._then
        self.reads_left -= 1
        file.read_into(offset, target)


def load_all(file: ModelFile) -> None:
    """What llama.cpp does, and then what the enclave does."""
    with CookieStream(file) as stream:
        fread(stream, file.size_bytes)
        stream.check()
    file.finish()


@pytest.mark.parametrize("reads", [2, 4, 9])
def test_a_file_that_changes_while_it_is_read_is_refused(tiny: Tiny, reads: int) -> None:
    """Whatever was checked before: the bytes that are used decide."""
    data = bytearray(tiny.clear)
    for placement in tiny.model.placements:
        data[placement.source_offset] ^= 1
    with (
        ModelFile([Swapping(tiny.clear, bytes(data), reads)], tiny.pin, threads=1) as file,
        pytest.raises(ModelFileError) as caught,
    ):
        load_all(file)
    assert caught.value.check in {"weights", "changed"}


def test_the_bytes_that_were_used_decide_and_not_those_of_a_later_look(tiny: Tiny) -> None:
    """A host that shows llama.cpp other weights, and the pinned ones to whoever looks afterwards."""
    data = bytearray(tiny.clear)
    data[tiny.model.placements[5].source_offset] ^= 1
    source = Swapping(bytes(data), tiny.clear, 10**9)
    with ModelFile([source], tiny.pin, threads=1) as file, CookieStream(file) as stream:
        fread(stream, file.size_bytes)
        stream.check()
        source.reads_left = 0
        with pytest.raises(ModelFileError) as caught:
            file.finish()
    assert caught.value.check == "weights"


def test_a_chunk_that_is_another_when_read_again_is_refused(tiny: Tiny) -> None:
    """A tensor that llama.cpp reads twice is the same both times, or the second time fails."""
    largest = max(tiny.model.placements, key=lambda placement: placement.size_bytes)
    changed = bytearray(tiny.clear)
    changed[largest.source_offset + 5] ^= 0x80
    source = Swapping(tiny.clear, bytes(changed), 10**9)
    with ModelFile([source], tiny.pin, threads=1) as file, CookieStream(file) as stream:
        for last in (False, True):
            assert _LIBC.fseek(stream.pointer, largest.offset, os.SEEK_SET) == 0
            assert len(fread(stream, largest.size_bytes)) == (0 if last else largest.size_bytes)
            source.reads_left = 0
        with pytest.raises(ModelFileError) as caught:
            stream.check()
    assert caught.value.check == "changed"


def test_a_tensor_that_nobody_reads_counts_as_well(tiny: Tiny) -> None:
    """llama.cpp may leave a tensor out; the identity does not."""
    data = bytearray(tiny.clear)
    data[tiny.model.placements[-1].source_offset] ^= 1
    with ModelFile([BytesAccess(bytes(data))], tiny.pin) as file, pytest.raises(ModelFileError) as caught:
        file.finish()
    assert caught.value.check == "weights"


Attack = Callable[[Tiny], bytes]


def swapped(tiny: Tiny) -> bytes:
    """Two chunks of tensor data."""
    head, chunks = sealed_pieces(tiny.sealed)
    chunks[40], chunks[41] = chunks[41], chunks[40]
    return head + b"".join(chunks)


def foreign(tiny: Tiny) -> bytes:
    """A chunk of another sealing of the same model under the same key."""
    head, chunks = sealed_pieces(tiny.sealed)
    chunks[-1] = sealed_pieces(seal_files(tiny.clear, file_id=b"\x01" * 32))[1][-1]
    return head + b"".join(chunks)


def flipped(tiny: Tiny) -> bytes:
    """One bit of the last chunk."""
    return tiny.sealed[:-1] + bytes([tiny.sealed[-1] ^ 1])


def other_weights(tiny: Tiny) -> bytes:
    """Sealed by the owner of the key, but other weights under the claim of the configured content."""
    data = bytearray(tiny.clear)
    data[tiny.model.placements[3].source_offset] ^= 1
    return seal_files(bytes(data), content=tiny.pin.content)


ATTACKS: dict[str, tuple[Attack, type[ModelFileError]]] = {
    "truncated": (lambda tiny: tiny.sealed[:-4096], SealedModelTruncated),
    "truncated-in-the-header": (lambda tiny: tiny.sealed[:100], SealedModelTruncated),
    "longer": (lambda tiny: tiny.sealed + b"\x00", SealedModelTruncated),
    "swapped": (swapped, SealedModelAltered),
    "foreign": (foreign, SealedModelAltered),
    "flipped": (flipped, SealedModelAltered),
    "rolled-back": (lambda tiny: seal_files(tiny.clear, model_version=4), SealedModelRolledBack),
    "another-model": (
        lambda tiny: seal_files(tiny.clear, model_version=5, content=tiny.pin.weights),
        SealedModelMismatch,
    ),
    "another-key": (lambda tiny: seal_files(tiny.clear, key=bytes(32), model_version=5), SealedModelMismatch),
    "clear": (lambda tiny: tiny.clear, SealedModelMalformed),
    "other-weights": (other_weights, ModelFileError),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_sealed_file_that_is_not_the_right_one_gives_its_own_error(
    tiny: Tiny, tmp_path: Path, attack: str
) -> None:
    """Wrong, truncated, swapped and rolled-back files: a typed error before the model is anybody's."""
    make, kind = ATTACKS[attack]
    path = tmp_path / "model.sealed"
    path.write_bytes(make(tiny))
    demanded = SealedTerms(key_id=KEY_ID, min_version=5 if attack == "rolled-back" else 0)
    with (
        pytest.raises(ModelFileError) as caught,
        ModelFile.open([str(path)], tiny.pin, key=ModelKey(TEST_KEY), terms=demanded) as file,
    ):
        load_all(file)
    assert type(caught.value) is kind
    if kind is ModelFileError:
        assert caught.value.check == "weights"
    else:
        assert isinstance(caught.value, SealedModelError)
        assert caught.value.check == kind.code


def test_the_wrong_key_is_refused_before_anything_is_read(tiny: Tiny) -> None:
    """Even one that the configuration names."""
    wrong = ModelKey(b"\x09" * 32)
    paths = [str(tiny.packings["sealed"][0])]
    with pytest.raises(SealedModelMismatch):
        ModelFile.open(paths, tiny.pin, key=wrong, terms=SealedTerms(key_id=wrong.key_id))
    with pytest.raises(WrongModelKey):
        ModelFile.open(paths, tiny.pin, key=wrong, terms=TERMS)


def test_a_sealed_model_needs_its_key_and_comes_in_one_file(tiny: Tiny) -> None:
    """Mistakes of the caller are named, too."""
    path = str(tiny.packings["sealed"][0])
    with pytest.raises(ConfigError, match="key"):
        ModelFile.open([path], tiny.pin, terms=TERMS)
    with pytest.raises(ConfigError, match="one file"):
        ModelFile.open([path, path], tiny.pin, key=ModelKey(TEST_KEY), terms=TERMS)


def test_what_a_sealed_file_says_is_known_without_its_key(tiny: Tiny, tmp_path: Path) -> None:
    """For early refusals only; nothing of it is authenticated."""
    assert sealed_header(str(tiny.packings["sealed"][0])).key_id == KEY_ID
    with pytest.raises(SealedModelMalformed):
        sealed_header(str(tiny.packings["clear"][0]))
    with pytest.raises(ModelFileError) as caught:
        sealed_header(str(tmp_path / "missing"))
    assert caught.value.check == "unreadable"
    short = tmp_path / "short"
    short.write_bytes(tiny.sealed[:-1])
    with pytest.raises(SealedModelTruncated):
        sealed_header(str(short))


def test_a_missing_or_shrinking_file_is_a_typed_error(tiny: Tiny, tmp_path: Path) -> None:
    """Not a bare OSError, and not an end of file in C."""
    with pytest.raises(ModelFileError) as caught:
        open_files([tmp_path / "missing"], tiny.pin, sealed=False)
    assert caught.value.check == "unreadable"
    path = tmp_path / "shrinking.gguf"
    path.write_bytes(tiny.clear)
    with open_files([path], tiny.pin, sealed=False) as file:
        os.truncate(path, 5000)
        with pytest.raises(ModelFileError) as caught:
            load_all(file)
    assert caught.value.check == "truncated"
