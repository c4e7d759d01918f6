# SPDX-License-Identifier: Apache-2.0
"""Reads which shared libraries an ELF file needs (System V ABI, chapters 4 and 5).

Only the dynamic section of 64-bit little-endian files is read. The files are the operator's own, yet a damaged one is
an error and not a crash.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton_protocol.errors import ConfigError

_MAGIC: Final = b"\x7fELF\x02\x01\x01"
"""Magic number, 64 bits, little-endian, version 1."""
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_DYNAMIC: Final = struct.Struct("<qQ")
_PT_LOAD: Final = 1
_PT_DYNAMIC: Final = 2
_PT_INTERP: Final = 3
_DT_NEEDED: Final = 1
_DT_STRTAB: Final = 5
_DT_RPATH: Final = 15
_DT_RUNPATH: Final = 29


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the dynamic section of a file asks for.

    Attributes:
        libraries: Names as the loader will look for them, such as ``libz.so.1``.
        search: Directories of RPATH or RUNPATH, with ``$ORIGIN`` as it stands there.
        interpreter: Path of the program that loads it; empty for a library.
    """

    libraries: tuple[str, ...]
    search: tuple[str, ...]
    interpreter: str


def is_elf(path: Path) -> bool:
    """Whether a file begins as a 64-bit little-endian ELF file does."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def needs(path: Path) -> Needs:
    """Read what ``path`` needs.

    Raises:
        ConfigError: It is no 64-bit little-endian ELF file, or a damaged one.
    """
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise ConfigError(f"{path} is not a 64-bit little-endian ELF file")
    try:
        return _read(data)
    except (struct.error, ValueError, OverflowError, LookupError) as error:
        raise ConfigError(f"the ELF file {path} is damaged") from error


def _read(data: bytes) -> Needs:
    header = _HEADER.unpack_from(data)
    segments_at, segment_bytes, segment_count = header[5], header[9], header[10]
    segments = [_SEGMENT.unpack_from(data, segments_at + n * segment_bytes) for n in range(segment_count)]
    loads = [(each[3], each[2], each[5]) for each in segments if each[0] == _PT_LOAD]
    interpreter = next((_text(data, each[2]) for each in segments if each[0] == _PT_INTERP), "")
    dynamic = next(((each[2], each[5]) for each in segments if each[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return Needs(libraries=(), search=(), interpreter=interpreter)
    offset, size = dynamic
    entries = list(_DYNAMIC.iter_unpack(data[offset : offset + size - size % _DYNAMIC.size]))
    strings_at = dict(entries)[_DT_STRTAB]
    (strings,) = [
        at + strings_at - address for address, at, length in loads if address <= strings_at < address + length
    ][:1]
    named = [
        (tag, _text(data, strings + value))
        for tag, value in entries
        if tag in {_DT_NEEDED, _DT_RPATH, _DT_RUNPATH}
    ]
    search = next((text for tag, text in named if tag == _DT_RUNPATH), "") or next(
        (text for tag, text in named if tag == _DT_RPATH), ""
    )
    return Needs(
        libraries=tuple(text for tag, text in named if tag == _DT_NEEDED),
        search=tuple(part for part in search.split(":") if part),
        interpreter=interpreter,
    )


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode("utf-8")
