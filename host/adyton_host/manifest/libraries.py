# SPDX-License-Identifier: Apache-2.0
"""Completes a file tree with the shared libraries that its ELF files ask for, and those that these ask for.

The loader in the enclave looks in ``/lib`` (Gramine's C library), then in ``/python/lib``, then where a file itself
says. Here names are found in the same order, so that what is copied is what will be loaded.
"""

import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from adyton_host.manifest.elf import Needs, is_elf, needs
from adyton_host.manifest.gramine import GramineFiles
from adyton_host.manifest.measured_root import LIBOS, LIBRARIES, PROGRAM, RUNTIME, Source
from adyton_protocol.errors import ConfigError

C_LIBRARY: Final = frozenset(
    {
        "ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libmvec.so.1", "libdl.so.2", "libpthread.so.0",
        "librt.so.1", "libutil.so.1", "libresolv.so.2", "libanl.so.1",
    }
)  # fmt: skip
"""Names that only Gramine may provide: those of the distribution issue system calls of their own."""

SYSTEM_DIRECTORIES: Final = tuple(
    Path(name)
    for name in (
        "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib", "/lib",
        "/usr/local/lib",
    )
)  # fmt: skip


def with_libraries(
    files: Mapping[str, Source],
    *,
    gramine: GramineFiles | None,
    directories: Sequence[Path] = SYSTEM_DIRECTORIES,
    also: Sequence[str] = (),
) -> dict[str, Source]:
    """The tree and every shared library that it needs.

    Args:
        files: By path in the tree.
        gramine: Provides the C library; without it, the C library is left out.
        directories: Of the system, in the order in which they are searched.
        also: Names that are loaded at run time without being asked for.

    Raises:
        ConfigError: A library is not found, or a file is damaged.
    """
    found = dict(files)
    # Not the library operating system: what that asks for is Gramine's first stage, which Gramine puts in its place.
    waiting = [
        (name, source)
        for name, source in files.items()
        if isinstance(source, Path) and name != LIBOS and is_elf(source)
    ]
    wanted: list[tuple[str, str, tuple[tuple[str, Path], ...]]] = [(PROGRAM, name, ()) for name in also]
    while waiting or wanted:
        while waiting:
            name, source = waiting.pop()
            asked = needs(source)
            where = _search(name, source, asked)
            wanted += [(name, library, where) for library in asked.libraries]
            if asked.interpreter:
                wanted.append((name, posixpath.basename(asked.interpreter), ()))
        by, library, where = wanted.pop()
        added = _provide(found, by, library, where, gramine=gramine, directories=directories)
        if added is not None:
            inside, source = added
            found[inside] = source
            waiting.append(added)
    return found


def _search(name: str, source: Path, asked: Needs) -> tuple[tuple[str, Path], ...]:
    """Where a file says that its libraries are: in the tree, and on this machine."""
    origin, here = posixpath.dirname(name), source.resolve().parent
    places = (place.replace("${ORIGIN}", "$ORIGIN") for place in asked.search)
    return tuple(
        (posixpath.normpath(place.replace("$ORIGIN", origin)), Path(place.replace("$ORIGIN", str(here))))
        for place in places
    )


def _provide(
    found: Mapping[str, Source],
    by: str,
    library: str,
    where: Sequence[tuple[str, Path]],
    *,
    gramine: GramineFiles | None,
    directories: Sequence[Path],
) -> tuple[str, Path] | None:
    """The file to add so that ``library`` is found; None when it is there."""
    inside = [f"{place}/{library}" for place in (RUNTIME, LIBRARIES, *(tree for tree, _ in where))]
    if any(name in found for name in inside):
        return None
    if gramine is not None and (gramine.c_library / library).is_file():
        return f"{RUNTIME}/{library}", gramine.c_library / library
    if library in C_LIBRARY:
        if gramine is None:
            return None
        raise ConfigError(f"{by} needs {library}, which Gramine's C library in {gramine.c_library} lacks")
    for directory in (*(host for _, host in where), *directories):
        if directory.is_absolute() and (directory / library).is_file():
            return f"{LIBRARIES}/{library}", directory / library
    raise ConfigError(
        f"{by} needs the shared library {library}, which is in none of {', '.join(map(str, directories))}"
    )
