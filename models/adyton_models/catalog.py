# SPDX-License-Identifier: Apache-2.0
"""The catalog: the one list of models that an appliance can serve.

A TOML file with paths relative to itself. The host copies its facts into the enclave's configuration;
the enclave checks content and weights on the very bytes it loads.
"""

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from adyton_protocol.digests import Digest, as_digest
from adyton_protocol.errors import ConfigError, LocalProtocolError
from adyton_protocol.model_identity import CacheProfile, SamplingDefaults, ScorerParts, model_identity

VERSION = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SCORER_KEYS = ("scorer", "adapter", "adapter_digest", "head", "head_digest")
_HEADER = """\
# SPDX-License-Identifier: Apache-2.0
# The models an appliance can serve; written by `adyton-models`, read by `adyton-host up`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling of a request that says nothing else; llama.cpp's own defaults."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    max_tokens: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model of the catalog."""

    name: str
    file: str
    """Path of the GGUF, relative to the catalog."""
    sha256: str
    """Of the file as it is, 64 hexadecimal digits: for whoever copies it."""
    content: str
    """Digest of what the file holds, however it is packed; `adyton-models identity` computes it."""
    weights: str
    """Root of the tree over its tensors, a part of the content."""
    license: str
    n_ctx: int
    role: str = "generator"
    embeddings: bool = False
    """Also makes embeddings; a model of role `embedding` does nothing else."""
    matryoshka: bool = False
    """Trained so that vectors may be cut."""
    description: str = ""
    key_id: str = ""
    """Of the key that the file is sealed under, 64 hexadecimal digits; empty for a file in the clear."""
    min_version: int = 0
    """Smallest version of a sealed file that is served."""
    scorer: str = ""
    """Name of the model of role `scorer` that judges its answers; empty without one."""
    adapter: str = ""
    """Of a scorer: path of its adapter, relative to the catalog."""
    adapter_digest: str = ""
    """SHA-256 of that file, as `sha256:` and 64 digits."""
    head: str = ""
    """Of a scorer with a head: path of its file, relative to the catalog."""
    head_digest: str = ""
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def scorer_parts(self) -> ScorerParts | None:
        """What makes a scorer of the model and is part of its identity; None for other roles.

        Raises:
            ConfigError: Something there is no digest.
        """
        if self.role != "scorer":
            return None
        head = _as_digest(self.head_digest) if self.head else None
        return ScorerParts(adapter=_as_digest(self.adapter_digest), head=head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All models, and which one is served when none is named."""

    default: str | None
    models: tuple[Entry, ...]

    def entry(self, name: str | None) -> Entry:
        """The model of that name, or the default.

        Raises:
            ConfigError: there is no such model.
        """
        wanted = self.default if name is None else name
        for entry in self.models:
            if wanted is None or entry.name == wanted:
                return entry
        known = ", ".join(entry.name for entry in self.models) or "none"
        raise ConfigError(f"no model {wanted!r} in the catalog; it has: {known}")


def identity_of(
    content: str,
    n_ctx: int,
    sampling: Sampling,
    cache: CacheProfile | None = None,
    scorer: ScorerParts | None = None,
) -> Digest:
    """The identity of a model as the enclave computes it, with the standard cache when none is given.

    Raises:
        ConfigError: The content is no digest.
    """
    digest = _as_digest(content)
    defaults = SamplingDefaults(
        temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k, min_p=sampling.min_p
    )
    return model_identity(
        content=digest, n_ctx=n_ctx, sampling=defaults, cache=cache or CacheProfile(), scorer=scorer
    )


def _as_digest(text: str) -> Digest:
    try:
        return as_digest(text)
    except LocalProtocolError as error:
        raise ConfigError(f"the content of a model, or of a file beside it, is no digest: {error}") from error


def default_catalog() -> Path:
    """`models/catalog.toml` of the checkout this package is installed from."""
    return Path(__file__).resolve().parents[1] / "catalog.toml"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


_Kind = TypeVar("_Kind", Sampling, Entry)


def _build(kind: type[_Kind], table: dict[str, Any], where: str) -> _Kind:
    known = {each.name for each in fields(kind)}
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(f"{where}: unknown keys {', '.join(unknown)}")
    try:
        return kind(**table)
    except TypeError as error:
        raise ConfigError(f"{where}: a key is missing ({error})") from error


def read_catalog(path: Path) -> Catalog:
    """Read and check a catalog.

    Raises:
        ConfigError: missing, no TOML, unknown or missing keys.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the catalog {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"the catalog {path} is not valid TOML: {error}") from error
    if set(document) - {"version", "default", "model"} or document.get("version") != VERSION:
        raise ConfigError(f"the catalog {path} has unknown keys or another version than {VERSION}")
    entries = []
    for table in document.get("model", []):
        where = f"model {table.get('name', '?')!r} in {path}"
        sampling = _build(Sampling, table.pop("sampling", {}), where)
        entries.append(_build(Entry, {**table, "sampling": sampling}, where))
    return Catalog(default=document.get("default"), models=tuple(entries))


def _toml(value: str | float) -> str:
    # A JSON string without surrogate escapes is a TOML basic string, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _line(table: Entry | Sampling, key: str) -> str:
    return f"{key} = {_toml(getattr(table, key))}"


def render_catalog(catalog: Catalog) -> str:
    """The catalog as TOML."""
    lines = [_HEADER, f"version = {VERSION}"]
    if catalog.default is not None:
        lines.append(f"default = {_toml(catalog.default)}")
    for entry in catalog.models:
        lines += ["", "[[model]]"]
        left_out = {"sampling"} | ({"key_id", "min_version"} if not entry.key_id else set())
        left_out |= {key for key in _SCORER_KEYS if not getattr(entry, key)}
        lines += [_line(entry, each.name) for each in fields(Entry) if each.name not in left_out]
        lines.append("[model.sampling]")
        lines += [_line(entry.sampling, each.name) for each in fields(Sampling)]
    return "\n".join(lines) + "\n"


def with_entry(catalog: Catalog, entry: Entry, *, make_default: bool) -> Catalog:
    """The catalog with `entry` added, or in the place of the one of the same name.

    Raises:
        ConfigError: the name is not made of lower-case letters, digits, dots, dashes and underscores.
    """
    if _NAME.fullmatch(entry.name) is None:
        raise ConfigError("a model's name consists of lower-case letters, digits, dots, dashes, underscores")
    models = [entry if old.name == entry.name else old for old in catalog.models]
    if entry not in models:
        models.append(entry)
    # A scorer is never served by itself.
    becomes = make_default or (catalog.default is None and entry.role != "scorer")
    default = entry.name if becomes else catalog.default
    return Catalog(default=default, models=tuple(models))


def without_entry(catalog: Catalog, name: str) -> Catalog:
    """The catalog without a model; without a default when it was that.

    Raises:
        ConfigError: There is no such model.
    """
    entry = catalog.entry(name)
    return Catalog(
        default=None if catalog.default == name else catalog.default,
        models=tuple(other for other in catalog.models if other != entry),
    )


def write_catalog(catalog: Catalog, path: Path) -> None:
    """Write a catalog in one piece: whoever reads it meanwhile sees the old one.

    Raises:
        ConfigError: It cannot be written there.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.write_text(render_catalog(catalog), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write the catalog {path}: {error.strerror}") from error
