# SPDX-License-Identifier: Apache-2.0
"""Loads a model from bytes whose digests were checked: no gap between the check and the use.

The host controls the file and may swap it between two reads. So it is read once, parsed and hashed in memory, and
llama.cpp gets a ``FILE *`` (glibc's ``fopencookie``) that reads the canonical header, which we wrote, and those very
tensors. The path is never opened again, and memory mapping is off, because mapped pages would come from the host's
file after all.
"""

import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from adyton_protocol.errors import ConfigError
from adyton_protocol.gguf_canonical import GgufModel, read_model
from adyton_protocol.model_identity import ModelPin, check_header, check_weights
from adyton_protocol.random_access import BytesAccess
from adyton_protocol.weights_tree import hash_weights

_READ_BYTES: Final = 16 * 1024 * 1024
_SEEK_SET: Final = 0
_SEEK_CUR: Final = 1
_SEEK_END: Final = 2

_ReadFunction = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_WriteFunction = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_SeekFunction = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_int)
_CloseFunction = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _CookieFunctions(ctypes.Structure):
    """``cookie_io_functions_t`` of glibc; null members mean that the operation is not supported."""

    _fields_ = (
        ("read", _ReadFunction),
        ("write", _WriteFunction),
        ("seek", _SeekFunction),
        ("close", _CloseFunction),
    )


def read_pinned(path: str, pin: ModelPin) -> tuple[GgufModel, bytearray]:
    """Read a whole file once, and make of it what llama.cpp gets: the canonical file of the pinned model.

    Args:
        path: A file under the host's control.
        pin: What it has to hold; from the measured configuration.

    Raises:
        ModelFileError: The file is malformed, or holds another model.
        ConfigError: It cannot be read.
    """
    source = BytesAccess(_read(path))
    model = read_model([source])
    # SECURITY: the header first; nothing is done with a tensor of a model that is not the pinned one.
    check_header(model, pin)
    check_weights(hash_weights(model, [source]).root(), pin)
    image = bytearray(model.size_bytes)
    image[: len(model.header)] = model.header
    target = memoryview(image)
    for placement in model.placements:
        end = placement.offset + placement.size_bytes
        source.read_into(placement.source_offset, target[placement.offset : end])
    target.release()
    return model, image


def _read(path: str) -> bytearray:
    try:
        with Path(path).open("rb", buffering=0) as file:
            data = bytearray(os.fstat(file.fileno()).st_size)
            filled = 0
            view = memoryview(data)
            while filled < len(data):
                count = file.readinto(view[filled : filled + _READ_BYTES])
                if not count:
                    break
                filled += count
            view.release()
    except OSError as error:
        raise ConfigError(f"the model file cannot be read: {error.strerror}") from error
    del data[filled:]
    return data


class CookieFile:
    """A read-only, seekable C ``FILE *`` over bytes in memory. Use as a context manager.

    The callbacks run inside C and must not raise: an exception there would be printed and turned into a
    zero, that is, into a silent end of file.
    """

    def __init__(self, data: bytearray) -> None:
        """Open over ``data``, which must not be resized while this lives (a buffer export holds it)."""
        self._buffer = (ctypes.c_char * len(data)).from_buffer(data) if data else None
        self._address = ctypes.addressof(self._buffer) if self._buffer is not None else 0
        self._size = len(data)
        self._position = 0
        # The structure keeps the callbacks alive; libc keeps only the addresses inside.
        self._functions = _CookieFunctions(
            read=_ReadFunction(self._read),
            write=_WriteFunction(),
            seek=_SeekFunction(self._seek),
            close=_CloseFunction(),
        )
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.fopencookie.restype = ctypes.c_void_p
        self._libc.fopencookie.argtypes = [ctypes.c_void_p, ctypes.c_char_p, _CookieFunctions]
        self._libc.fclose.argtypes = [ctypes.c_void_p]
        pointer = self._libc.fopencookie(None, b"rb", self._functions)
        if not pointer:
            raise ConfigError("the C library could not open a custom stream")
        self._pointer: int | None = int(pointer)

    @property
    def pointer(self) -> int:
        """The ``FILE *`` as an address."""
        if self._pointer is None:
            raise ValueError("the stream is closed")
        return self._pointer

    def close(self) -> None:
        """Close the stream and let go of the bytes. Idempotent."""
        if self._pointer is not None:
            self._libc.fclose(self._pointer)
            self._pointer = None
            self._buffer = None
            self._size = 0

    def _read(self, _cookie: int | None, target: int | None, count: int) -> int:
        count = min(count, self._size - self._position)
        if count <= 0 or not target:
            return 0
        ctypes.memmove(target, self._address + self._position, count)
        self._position += count
        return count

    def _seek(self, _cookie: int | None, offset: "ctypes._Pointer[ctypes.c_int64]", whence: int) -> int:
        bases = {_SEEK_SET: 0, _SEEK_CUR: self._position, _SEEK_END: self._size}
        base = bases.get(whence)
        if base is None:
            return -1
        position = base + offset[0]
        if not 0 <= position <= self._size:
            return -1
        self._position = position
        offset[0] = position
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
