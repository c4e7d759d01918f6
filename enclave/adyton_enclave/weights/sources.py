# SPDX-License-Identifier: Apache-2.0
"""Model files of the host as bytes that are read by offset: in the clear, sealed, or several in one sealed file.

SECURITY: the host may exchange a file between two reads. Nothing here remembers what it read before; whoever reads
through these classes hashes the very bytes that it uses.
"""

import ctypes
import errno
import os
import threading
from collections import OrderedDict
from typing import Any, Final

from adyton_protocol.errors import ModelFileError
from adyton_protocol.random_access import RandomAccess
from adyton_protocol.sealed_model import MAX_HEADER_BYTES, TAG_BYTES, ModelOpener

_KEPT_CHUNKS: Final = 4
"""Pieces of a tensor and chunks of a sealed file do not begin at the same places, so that neighbours need a chunk
twice; with more threads than this, one would be opened twice, and nothing else would happen."""

# Gramine has pread and no preadv, which is the only call with which Python itself reads to a place without a copy. The
# interpreter lock is free meanwhile.
_pread: Any = ctypes.CDLL(None, use_errno=True).pread
_pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64]
_pread.restype = ctypes.c_ssize_t


class FileSource:
    """A file, opened once. Whoever opens it closes it."""

    def __init__(self, path: str) -> None:
        """Open it.

        Raises:
            ModelFileError: It cannot be opened.
        """
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(error) from error
        self.size_bytes: Final = os.fstat(self._descriptor).st_size

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target``; see :class:`~adyton_protocol.random_access.RandomAccess`."""
        done, size = 0, target.nbytes
        while done < size:
            # Alive until the call has returned, so that the memory behind it stays where it is.
            place = ctypes.c_char.from_buffer(target, done)
            count = _pread(self._descriptor, ctypes.byref(place), size - done, offset + done)
            if count < 0:
                number = ctypes.get_errno()
                if number == errno.EINTR:
                    continue
                raise _unreadable(OSError(number, os.strerror(number)))
            if not count:
                raise ModelFileError("the model file ends before its contents do", check="truncated")
            done += count

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _unreadable(error: OSError) -> ModelFileError:
    return ModelFileError(f"the model file cannot be read: {error.strerror}", check="unreadable")


def read_beginning(file: FileSource) -> bytes:
    """As much of a file as the header of a sealed one may have; attacker-controlled."""
    beginning = bytearray(min(MAX_HEADER_BYTES, file.size_bytes))
    file.read_into(0, memoryview(beginning))
    return bytes(beginning)


class SealedSource:
    """The plaintext of a sealed file. Chunks are opened on the way, and a few are kept for their neighbours."""

    def __init__(self, file: RandomAccess, opener: ModelOpener) -> None:
        """Read ``file``, whose header ``opener`` has checked.

        Raises:
            SealedModelTruncated: The file has another length than its header says.
        """
        opener.header.check_file_bytes(file.size_bytes)
        self._file = file
        self._opener = opener
        self._header = opener.header
        self.size_bytes: Final = opener.header.plain_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, bytearray] = OrderedDict()
        self._local = threading.local()

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target``; see :class:`~adyton_protocol.random_access.RandomAccess`.

        Raises:
            SealedModelAltered: A chunk is not what was sealed in its place.
            ModelFileError: The file became shorter or unreadable.
        """
        if not 0 <= offset <= self.size_bytes - len(target):
            raise ModelFileError("the model file ends before its contents do", check="truncated")
        chunk_bytes = self._header.chunk_bytes
        done = 0
        while done < len(target):
            index, begin = divmod(offset + done, chunk_bytes)
            size = self._header.plain_bytes_of(index)
            count = min(size - begin, len(target) - done)
            part = target[done : done + count]
            if count == size:
                self._open(index, part)
            else:
                part[:] = self._chunk(index)[begin : begin + count]
            done += count

    def wipe(self) -> None:
        """Overwrite the chunks that are kept."""
        with self._lock:
            for chunk in self._kept.values():
                chunk[:] = bytes(len(chunk))
            self._kept.clear()

    def _chunk(self, index: int) -> memoryview:
        """A whole chunk, opened now or a moment ago. Threads that need the same one at once may both open it."""
        with self._lock:
            chunk = self._kept.get(index)
            if chunk is not None:
                self._kept.move_to_end(index)
                return memoryview(chunk)
        chunk = bytearray(self._header.plain_bytes_of(index))
        self._open(index, memoryview(chunk))
        with self._lock:
            self._kept[index] = chunk
            # What is dropped here may be in use by another thread; it is enclave memory either way.
            while len(self._kept) > _KEPT_CHUNKS:
                self._kept.popitem(last=False)
        return memoryview(chunk)

    def _open(self, index: int, target: memoryview) -> None:
        size = self._header.plain_bytes_of(index) + TAG_BYTES
        sealed: bytearray | None = getattr(self._local, "sealed", None)
        if sealed is None:
            sealed = self._local.sealed = bytearray(self._header.chunk_bytes + TAG_BYTES)
        view = memoryview(sealed)[:size]
        self._file.read_into(self._header.offset_of(index), view)
        self._opener.open_into(index, view, target)


class Window:
    """A part of another source: one of the files inside a sealed one."""

    def __init__(self, source: RandomAccess, offset: int, size_bytes: int) -> None:
        """See ``size_bytes`` bytes of ``source`` from ``offset`` on."""
        self._source = source
        self._offset = offset
        self.size_bytes: Final = size_bytes

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target``; see :class:`~adyton_protocol.random_access.RandomAccess`."""
        if not 0 <= offset <= self.size_bytes - len(target):
            raise ModelFileError("the model file ends before its contents do", check="truncated")
        self._source.read_into(self._offset + offset, target)


def members(source: SealedSource, sizes: tuple[int, ...]) -> tuple[Window, ...]:
    """The files inside a sealed one."""
    windows, begin = [], 0
    for size in sizes:
        windows.append(Window(source, begin, size))
        begin += size
    return tuple(windows)
