# SPDX-License-Identifier: Apache-2.0
"""A manifest as the linter looks at it: what it says, wherever it says it, and the configuration that it measures.

Nothing here raises because a value has a wrong type: a rule of its own refuses those, and the other rules then see
nothing.
"""

import hashlib
import posixpath
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from adyton_host.enclave_config import FILE_NAME
from adyton_host.manifest.template import parse

MAX_CONFIG_BYTES: Final = 256 * 1024
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One entry of ``fs.mounts``."""

    kind: str
    path: str
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A manifest and what could be read of the configuration beside it.

    Attributes:
        document: The manifest.
        configuration: Of the enclave, if it lies beside the manifest and is the one that is measured.
        configuration_changed: It lies there, and is another one.
    """

    document: Mapping[str, Any]
    configuration: Mapping[str, Any] | None = None
    configuration_changed: bool = False
    mounts: tuple[Mount, ...] = field(default=())

    def option(self, dotted: str) -> Any:
        """The value of an option such as ``sgx.debug``; None where it is not set."""
        value: Any = self.document
        for key in dotted.split("."):
            if not isinstance(value, Mapping) or key not in value:
                return None
            value = value[key]
        return value

    def texts(self, dotted: str) -> tuple[str, ...]:
        """The texts of a list; nothing where it is not one."""
        value = self.option(dotted)
        return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()

    def table(self, dotted: str) -> Mapping[str, Any]:
        """A table; an empty one where it is not one."""
        value = self.option(dotted)
        return value if isinstance(value, Mapping) else {}

    @property
    def argv(self) -> tuple[str, ...]:
        """The fixed command line."""
        return self.texts("loader.argv")

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment variables with fixed values."""
        found: dict[str, str] = {}
        for name, value in self.table("loader.env").items():
            fixed = value.get("value") if isinstance(value, Mapping) else value
            if isinstance(fixed, str):
                found[name] = fixed
        return found

    @property
    def trusted(self) -> tuple[tuple[str, str | None], ...]:
        """URIs of the trusted files, each with its SHA-256 if it has a proper one."""
        value = self.option("sgx.trusted_files")
        return tuple(_trusted(value)) if isinstance(value, list) else ()

    @property
    def allowed(self) -> tuple[str, ...]:
        """URIs of the allowed files."""
        return self.texts("sgx.allowed_files")

    @property
    def uris(self) -> Iterator[str]:
        """Every URI of the host that the manifest names."""
        for uri in (self.option("loader.entrypoint.uri"), self.option("fs.root.uri")):
            if isinstance(uri, str):
                yield uri
        yield from (mount.uri for mount in self.mounts if mount.kind != "tmpfs")
        yield from (uri for uri, _ in self.trusted)
        yield from self.allowed

    def behind(self, inside: str) -> str | None:
        """The URI of the host behind a path in the enclave; None where nothing is mounted."""
        best = max(
            (mount for mount in self.mounts if covers(mount.path, inside)),
            key=lambda mount: len(mount.path),
            default=None,
        )
        if best is None or best.kind == "tmpfs":
            return None
        return best.uri.rstrip("/") + inside[len(best.path.rstrip("/")) :]

    @property
    def configuration_uri(self) -> str | None:
        """The URI behind ``enclave.toml`` in the directory in which the enclave starts."""
        start = self.option("fs.start_dir")
        return self.behind(posixpath.join(start, FILE_NAME)) if isinstance(start, str) else None

    def pinned(self) -> frozenset[str]:
        """URIs of the files whose digests the measured configuration demands: models, adapters and heads."""
        found: set[str] = set()
        models = None if self.configuration is None else self.configuration.get("model")
        for model in models if isinstance(models, list) else []:
            if isinstance(model, Mapping):
                found |= {uri for path in _pinned(model) if (uri := self.behind(path)) is not None}
        return frozenset(found)


def covers(directory: str, path: str) -> bool:
    """Whether ``path`` is ``directory`` or lies below it; both without ``..``."""
    above = directory.rstrip("/")
    return path == above or path.startswith(above + "/")


def view(data: bytes, name: str, directory: Path | None) -> View:
    """Look at a manifest.

    Args:
        data: Its bytes.
        name: Of the file, for errors.
        directory: Where Gramine would be started, to find the configuration; None for a manifest by itself.

    Raises:
        ConfigError: It is not TOML.
    """
    document = parse(data, name)
    mounts = tuple(_mounts(document.get("fs")))
    bare = View(document=document, mounts=mounts)
    uri = bare.configuration_uri
    measured = next((digest for entry, digest in bare.trusted if entry == uri), None)
    if directory is None or uri is None or measured is None or not uri.startswith("file:"):
        return bare
    try:
        with (directory / uri.removeprefix("file:")).open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError):
        return bare
    if hashlib.sha256(text).hexdigest() != measured:
        return View(document=document, mounts=mounts, configuration_changed=True)
    try:
        configuration = tomllib.loads(text.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return bare
    return View(document=document, mounts=mounts, configuration=configuration)


def _mounts(table: object) -> Iterator[Mount]:
    listed = table.get("mounts") if isinstance(table, Mapping) else None
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, Mapping):
            kind, path, uri = entry.get("type", "chroot"), entry.get("path"), entry.get("uri", "")
            if isinstance(kind, str) and isinstance(path, str) and isinstance(uri, str):
                yield Mount(kind=kind, path=path, uri=uri)


def _trusted(entries: Sequence[object]) -> Iterator[tuple[str, str | None]]:
    for entry in entries:
        uri, digest = (entry.get("uri"), entry.get("sha256")) if isinstance(entry, Mapping) else (entry, None)
        if isinstance(uri, str):
            yield uri, digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else None


def _pinned(model: Mapping[str, Any]) -> Iterator[str]:
    """Paths in the enclave whose bytes a ``[[model]]`` of the configuration fixes."""

    def digest(key: str) -> bool:
        value = model.get(key)
        return isinstance(value, str) and _DIGEST.fullmatch(value) is not None

    paths = model.get("paths", [model.get("path")])
    if digest("content") and digest("weights") and isinstance(paths, list):
        yield from (path for path in paths if isinstance(path, str))
    for key in ("adapter", "head"):
        path = model.get(key)
        if isinstance(path, str) and digest(f"{key}_digest"):
            yield path
