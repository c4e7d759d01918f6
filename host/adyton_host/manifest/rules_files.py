# SPDX-License-Identifier: Apache-2.0
"""Rules about files: what is mounted, what is trusted, what is merely allowed.

In Gramine, directories are always allowed, and an allowed file is allowed even if it is trusted as well: the entry for
allowed files is looked at first (``libos/src/fs/chroot/fs.c``).
"""

import posixpath
from collections import Counter
from collections.abc import Iterable
from typing import Final

from adyton_host.manifest.render import MAX_FILES
from adyton_host.manifest.rule import Rule, must_be
from adyton_host.manifest.view import View, covers

_SIMULATION: Final = ("adyton_enclave/simulation.py", "adyton_enclave/probe.py")
_PLATFORM: Final = "/adyton/platform/"
_MODEL_SUFFIXES: Final = (".gguf", ".sealed")
_BYTECODE: Final = (".pyc", ".pyo")
_SOCKETS: Final = (".sock", ".socket")


def _path(uri: str) -> str:
    """The path of a URI, in its shortest form."""
    return posixpath.normpath(uri.partition(":")[2])


def _shared_memory(manifest: View) -> Iterable[str]:
    yield from (
        f"{mount.path} is untrusted_shm" for mount in manifest.mounts if mount.kind == "untrusted_shm"
    )


def _encrypted(manifest: View) -> Iterable[str]:
    yield from (f"{mount.path} is encrypted" for mount in manifest.mounts if mount.kind == "encrypted")


def _devices(manifest: View) -> Iterable[str]:
    for mount in manifest.mounts:
        if mount.kind == "chroot" and (mount.uri.startswith("dev:") or covers("/dev", _path(mount.uri))):
            yield f"{mount.path} is {mount.uri}"


def _sockets(manifest: View) -> Iterable[str]:
    yield from (mount.path for mount in manifest.mounts if mount.path.endswith(_SOCKETS))
    yield from (word for word in manifest.argv if word == "--uds" or word.startswith("unix:"))
    configuration = manifest.configuration or {}
    host = configuration.get("listen_host", "")
    if isinstance(host, str) and (host.startswith("unix:") or "/" in host):
        yield f"enclave.toml: listen_host = {host!r}"


def _host_paths(manifest: View) -> Iterable[str]:
    for uri in manifest.uris:
        path = uri.partition(":")[2]
        if uri.startswith("file:") and (path.startswith("/") or ".." in path.split("/")):
            yield uri


def _mounts_without_files(manifest: View) -> Iterable[str]:
    files = [_path(uri) for uri in (*manifest.allowed, *(uri for uri, _ in manifest.trusted))]
    for mount in manifest.mounts:
        if (
            mount.kind == "chroot"
            and mount.uri.startswith("file:")
            and not any(covers(_path(mount.uri), path) for path in files)
        ):
            yield f"{mount.path} from {mount.uri}"


def _allowed(manifest: View) -> Iterable[str]:
    yield from manifest.allowed


def _allowed_over_measured(manifest: View) -> Iterable[str]:
    measured = [_path(uri) for uri, _ in manifest.trusted]
    measured += [_path(uri) for uri in (manifest.option("loader.entrypoint.uri"),) if isinstance(uri, str)]
    for uri in manifest.allowed:
        if any(covers(_path(uri), path) for path in measured) or _path(uri) == ".":
            yield uri


def _unhashed(manifest: View) -> Iterable[str]:
    yield from (uri for uri, digest in manifest.trusted if digest is None or uri.endswith("/"))


def _twice(manifest: View) -> Iterable[str]:
    counted = Counter(_path(uri) for uri, _ in manifest.trusted)
    yield from (path for path, times in counted.items() if times > 1)


def _bytecode(manifest: View) -> Iterable[str]:
    yield from (uri for uri, _ in manifest.trusted if uri.endswith(_BYTECODE))


def _simulation(manifest: View) -> Iterable[str]:
    yield from (uri for uri, _ in manifest.trusted if uri.endswith(_SIMULATION) or _PLATFORM in uri)


def _hashed_models(manifest: View) -> Iterable[str]:
    yield from (uri for uri, _ in manifest.trusted if uri.endswith(_MODEL_SUFFIXES))


def _too_many(manifest: View) -> Iterable[str]:
    if len(manifest.trusted) > MAX_FILES:
        yield f"{len(manifest.trusted)} trusted files"


def _entrypoint(manifest: View) -> Iterable[str]:
    digest = manifest.option("loader.entrypoint.sha256")
    if not isinstance(digest, str) or len(digest) != _SHA256_CHARS or not _HEX.issuperset(digest):
        yield "loader.entrypoint.sha256 is not 64 hexadecimal digits"


_SHA256_CHARS: Final = 64
_HEX: Final = frozenset("0123456789abcdef")

RULES: Final = (
    must_be(
        "root-on-host",
        "fs.root.type",
        "tmpfs",
        "otherwise the root is a directory of the host, by default the one in which Gramine is started",
    ),
    Rule(
        "untrusted-shared-memory",
        "the host reads and writes this memory while the enclave uses it",
        _shared_memory,
    ),
    Rule(
        "encrypted-mount",
        "the host can put an older version back, a microcode update makes sealed keys unreadable, and reading is slow",
        _encrypted,
    ),
    Rule(
        "device", "what comes from a device of the host is unchecked, and goes to it in the clear", _devices
    ),
    Rule(
        "unix-socket",
        "in Gramine a Unix socket is private to the enclave and reaches no host process: listen on TCP loopback",
        _sockets,
    ),
    Rule(
        "host-path",
        "paths of one machine make another measurement on the next one, and lead out of the image",
        _host_paths,
    ),
    Rule(
        "mount-without-files",
        "a directory of the host would be listed inside though no file of it may be read, and imports fail on what "
        "the host puts there",
        _mounts_without_files,
    ),
    Rule(
        "allowed-file",
        "the host can change it at any moment, between two reads as well, and the enclave can write to it",
        _allowed,
    ),
    Rule(
        "allowed-over-measured",
        "an allowed entry wins over a trusted one, so these files would not be checked at all",
        _allowed_over_measured,
    ),
    Rule(
        "file-without-hash",
        "what is measured would depend on the machine that signs; a directory takes in whatever lies there",
        _unhashed,
    ),
    Rule("file-listed-twice", "which of two entries counts depends on their order", _twice),
    Rule(
        "bytecode",
        "bytecode holds times and reference counts, so it is not reproducible, and nobody reviews it",
        _bytecode,
    ),
    Rule(
        "simulator",
        "a production enclave does not contain the simulator, its keys, or the probe for tuning",
        _simulation,
    ),
    Rule(
        "model-as-trusted-file",
        "Gramine hashes it twice when it is looked up and again at every read, at about 110 MB/s; allow it and pin its "
        "digest in enclave.toml, which is checked on the bytes that are used",
        _hashed_models,
    ),
    Rule(
        "too-many-files",
        "Gramine walks a list of them at every look-up; starting takes seconds more",
        _too_many,
    ),
    Rule(
        "library-os-without-hash",
        "the first code that Gramine loads would be filled in by whoever signs",
        _entrypoint,
    ),
)
