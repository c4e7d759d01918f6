# SPDX-License-Identifier: Apache-2.0
"""A C ``FILE *`` whose reads are ours (glibc's ``fopencookie``), which is how llama.cpp takes a model from memory.

Whatever goes wrong inside is kept and raised where Python is in charge again: C sees a read error, gives up, and
:meth:`CookieStream.check` then says why.

What glibc does with such a stream decides the speed. It reads through its buffer, always, and after a seek it first
fills the buffer from the last multiple of the buffer's size, so that the wanted bytes stand somewhere inside. Nobody
asked for what stands before them, and fetching it costs as much as the piece itself. So the first read after a seek to
where nothing begins that could be wanted gets no bytes; glibc then seeks to the place itself.
"""

import ctypes
from types import TracebackType
from typing import Final, Protocol, Self

from adyton_protocol.errors import ConfigError

BUFFER_BYTES: Final = 1024 * 1024
"""Of the stream; so much is copied with one call into Python."""

_SEEK_SET: Final = 0
_SEEK_CUR: Final = 1
_SEEK_END: Final = 2
_FULLY_BUFFERED: Final = 0

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


class Contents(Protocol):
    """What a stream shows."""

    @property
    def size_bytes(self) -> int:
        """Of the whole."""
        ...

    def begins_at(self, position: int) -> bool:
        """Whether somebody may want bytes from here on without having read those before."""
        ...

    def piece(self, position: int, most: int) -> memoryview:
        """Some bytes from ``position`` on: at least one, at most ``most``. The view is used before the next call."""
        ...


class CookieStream:
    """A read-only, seekable ``FILE *``. Use as a context manager, from one thread at a time."""

    def __init__(self, contents: Contents) -> None:
        """Open over ``contents``.

        Raises:
            ConfigError: The C library could not do it.
        """
        self._contents = contents
        self._position = 0
        self._sought = False
        self._error: BaseException | None = None
        self._buffer = (ctypes.c_char * BUFFER_BYTES)()
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
        self._libc.setvbuf.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
        pointer = self._libc.fopencookie(None, b"rb", self._functions)
        if not pointer:
            raise ConfigError("the C library could not open a custom stream")
        self._pointer: int | None = int(pointer)
        self._libc.setvbuf(pointer, self._buffer, _FULLY_BUFFERED, BUFFER_BYTES)

    @property
    def pointer(self) -> int:
        """The ``FILE *`` as an address."""
        if self._pointer is None:
            raise ValueError("the stream is closed")
        return self._pointer

    def check(self) -> None:
        """Raise what went wrong while C was reading, if anything did."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Close the stream and overwrite its buffer, which held weights. Idempotent."""
        if self._pointer is not None:
            self._libc.fclose(self._pointer)
            self._pointer = None
            ctypes.memset(self._buffer, 0, BUFFER_BYTES)

    def _read(self, _cookie: int | None, target: int | None, count: int) -> int:
        """SECURITY: must not raise. ctypes would print the exception and answer 0, which is an end of file."""
        try:
            speculative = self._sought and not self._contents.begins_at(self._position)
            self._sought = False
            left = self._contents.size_bytes - self._position
            if speculative or left <= 0 or not target or self._error is not None:
                return 0 if self._error is None else -1
            piece = self._contents.piece(self._position, min(count, left))
            ctypes.memmove(target, _address(piece), len(piece))
        except BaseException as error:  # noqa: BLE001 - raised by check()
            self._error = error
            return -1
        self._position += len(piece)
        return len(piece)

    def _seek(self, _cookie: int | None, offset: "ctypes._Pointer[ctypes.c_int64]", whence: int) -> int:
        size = self._contents.size_bytes
        bases = {_SEEK_SET: 0, _SEEK_CUR: self._position, _SEEK_END: size}
        base = bases.get(whence)
        if base is None:
            return -1
        position = base + offset[0]
        if not 0 <= position <= size:
            return -1
        self._position = position
        # A relative seek is glibc's way to the place itself, after the block before it gave nothing.
        self._sought = whence == _SEEK_SET
        offset[0] = position
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _address(view: memoryview) -> ctypes.Array[ctypes.c_char] | bytes:
    """A view as something that ctypes takes for a pointer; a buffer that cannot be written is copied."""
    return view.tobytes() if view.readonly else (ctypes.c_char * len(view)).from_buffer(view)
