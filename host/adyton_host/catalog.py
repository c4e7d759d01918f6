# SPDX-License-Identifier: Apache-2.0
"""The catalog of models that can be served: a TOML file that the model tools write and the operator extends.

::

    version = 1
    default = "adyton-small"          # optional; the first generator otherwise

    [[model]]
    name = "adyton-small"
    file = "shipped/adyton-small.gguf"  # relative to the catalog
    content = "sha256:9f86d0…"        # of what the file holds, however it is packed
    weights = "sha256:60303a…"        # a part of that: the root of the tree over the tensors
    sha256 = "fcde2b…"                # optional: of the file itself, for whoever copies it
    key_id = "5e9c11…"                # optional: the file is sealed, under the key of this id
    min_version = 3                   # optional: an older sealing of it is refused
    license = "Apache-2.0"
    n_ctx = 2048
    role = "generator"                # or "embedding", or "scorer"
    embeddings = true                 # optional: a generator that also makes vectors
    matryoshka = false                # optional: its vectors may be cut
    scorer = "adyton-scorer"          # optional: the model that judges its answers, started with it

    [model.sampling]
    temperature = 0.7

    [[model]]
    name = "adyton-scorer"
    role = "scorer"
    adapter = "shipped/adyton-scorer.toml"  # how it is asked, relative to the catalog
    adapter_digest = "sha256:d4735e…"       # of that file
    head = "head.gguf"                      # only where the adapter asks for one, with head_digest

The host only passes these facts on. The enclave checks the digests on the very bytes that it loads.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton_protocol.errors import ConfigError

_GENERATOR: Final = "generator"
_SCORER: Final = "scorer"
_SERVED_ROLES: Final = (_GENERATOR, "embedding")
_SHA256_HEX_CHARS: Final = 64
_HEX: Final = frozenset("0123456789abcdef")
_VERSION: Final = 1
_FIRST_PART: Final = re.compile(r"(?P<stem>.*)-00001-of-(?P<count>\d{5})\.gguf")
_KEYS: Final = frozenset(
    {
        "name",
        "file",
        "content",
        "weights",
        "sha256",
        "key_id",
        "min_version",
        "license",
        "n_ctx",
        "role",
        "embeddings",
        "matryoshka",
        "scorer",
        "adapter",
        "adapter_digest",
        "head",
        "head_digest",
        "description",
        "sampling",
    }
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file beside a model: its absolute path and its SHA-256."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogModel:
    """One model.

    Attributes:
        name: The name by which clients ask for it.
        path: Absolute path of the GGUF file, or of the first part of a split one.
        more_paths: The other parts, found by their names.
        key_id: Of the key that the file is sealed under, 64 hexadecimal digits; None for a file in the clear.
        min_version: Smallest version of a sealed file.
        content: Digest of what the file holds; empty for a file that no catalog lists.
        weights: Root of the tree over its tensors; as above.
        license: SPDX expression.
        n_ctx: Context window in tokens.
        role: ``generator``, ``embedding``, ``scorer``, or another that this version of the host does not start.
        embeddings: Whether it makes embeddings beside answers.
        matryoshka: Whether callers may ask for shorter vectors.
        sampling: Defaults for clients that leave sampling parameters out.
        scorer: Name of the model that judges its answers, None where nobody does.
        adapter: Of a scorer: how it is asked.
        head: Of a scorer that has one.
    """

    name: str
    path: Path
    content: str
    weights: str
    license: str
    n_ctx: int
    role: str
    sampling: Mapping[str, float]
    embeddings: bool = False
    matryoshka: bool = False
    more_paths: tuple[Path, ...] = ()
    key_id: str | None = None
    min_version: int = 0
    scorer: str | None = None
    adapter: Attachment | None = None
    head: Attachment | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of its weights, in their order."""
        return (self.path, *self.more_paths)


def default_catalog() -> Path:
    """``models/catalog.toml`` of the checkout that this package is installed from.

    Raises:
        ConfigError: The package is not installed from a checkout.
    """
    for parent in Path(__file__).resolve().parents:
        candidate = parent / "models" / "catalog.toml"
        if candidate.is_file():
            return candidate
    raise ConfigError(
        "no models/catalog.toml above the installed package; name one with --catalog (a checkout of the "
        "repository has it in models/)"
    )


def load_catalog(path: Path) -> tuple[str | None, tuple[CatalogModel, ...]]:
    """Read a catalog: the default's name if it names one, and the models in order.

    Raises:
        ConfigError: The file is missing, is not TOML, or an entry is incomplete.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the catalog {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the catalog {path} is not valid TOML: {error}") from error
    unknown = set(document) - {"version", "default", "model"}
    if unknown:
        raise ConfigError(f"the catalog {path} has unknown keys: {', '.join(sorted(unknown))}")
    if document.get("version") != _VERSION:
        raise ConfigError(f"the catalog {path} is not of version {_VERSION}")
    entries = document.get("model", [])
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"the catalog {path} lists no [[model]]")
    models = tuple(_model(entry, path) for entry in entries)
    default = document.get("default")
    if default is not None and default not in {model.name for model in models}:
        raise ConfigError(f"the catalog {path} names {default!r} as default, but lists no such model")
    return default, models


def choose(path: Path, name: str | None) -> CatalogModel:
    """The model called ``name``, or the catalog's default; its file is there.

    Raises:
        ConfigError: No such model, not one that is served by itself, or its file is missing; the message lists
            names.
    """
    default, models = load_catalog(path)
    served = [model for model in models if model.role in _SERVED_ROLES]
    wanted = name if name is not None else default
    if wanted is None:
        chosen = next((model for model in served if model.role == _GENERATOR), None)
    else:
        chosen = next((model for model in served if model.name == wanted), None)
    if chosen is None:
        names = ", ".join(model.name for model in served) or "none"
        raise ConfigError(f"no model called {wanted!r} in {path}; models that can be served: {names}")
    _check_files(chosen)
    return chosen


def with_scorer(path: Path, model: CatalogModel) -> tuple[CatalogModel, ...]:
    """A model and the one that judges its answers, if the catalog names one; its files are there.

    Raises:
        ConfigError: The catalog lists no such scorer, or a file is missing.
    """
    if model.scorer is None:
        return (model,)
    _, models = load_catalog(path)
    scorer = next((each for each in models if each.name == model.scorer and each.role == _SCORER), None)
    if scorer is None:
        raise ConfigError(f"model {model.name!r} names {model.scorer!r} as its scorer, but {path} lists none")
    _check_files(scorer)
    return (model, scorer)


def _check_files(model: CatalogModel) -> None:
    beside = [attachment.path for attachment in (model.adapter, model.head) if attachment is not None]
    missing = next((path for path in (*model.files, *beside) if not path.is_file()), None)
    if missing is not None:
        next_step = (
            "copy the sealed file there, or correct `file` in the catalog"
            if model.key_id
            else "`make models` builds the shipped models, `adyton-models add` registers your own GGUF"
        )
        raise ConfigError(f"the file of model {model.name!r} is missing: {missing}; {next_step}")


def _model(entry: object, catalog: Path) -> CatalogModel:
    if not isinstance(entry, dict):
        raise ConfigError(f"an entry of the catalog {catalog} is not a table")
    name = _text(entry, "name", catalog)
    unknown = set(entry) - _KEYS
    if unknown:
        raise ConfigError(f"model {name!r} in {catalog} has unknown keys: {', '.join(sorted(unknown))}")
    n_ctx = entry.get("n_ctx")
    if type(n_ctx) is not int or n_ctx <= 0:
        raise ConfigError(f"model {name!r} in {catalog}: n_ctx is not a positive number of tokens")
    sampling = entry.get("sampling", {})
    if not isinstance(sampling, dict) or not all(type(value) in {int, float} for value in sampling.values()):
        raise ConfigError(f"model {name!r} in {catalog}: sampling is not a table of numbers")
    path, *more_paths = _parts((catalog.resolve().parent / _text(entry, "file", catalog)).resolve())
    return CatalogModel(
        name=name,
        path=path,
        more_paths=tuple(more_paths),
        key_id=_key_id(entry, catalog),
        min_version=_min_version(entry, catalog),
        content=_digest(entry, "content", catalog),
        weights=_digest(entry, "weights", catalog),
        license=_text(entry, "license", catalog),
        n_ctx=n_ctx,
        role=_text(entry, "role", catalog) if "role" in entry else _GENERATOR,
        embeddings=_flag(entry, "embeddings", catalog),
        matryoshka=_flag(entry, "matryoshka", catalog),
        sampling=sampling,
        scorer=_text(entry, "scorer", catalog) if "scorer" in entry else None,
        adapter=_attachment(entry, "adapter", catalog, needed=entry.get("role") == _SCORER),
        head=_attachment(entry, "head", catalog),
    )


def _attachment(
    entry: Mapping[str, object], key: str, catalog: Path, *, needed: bool = False
) -> Attachment | None:
    if key not in entry and not needed:
        return None
    path = (catalog.resolve().parent / _text(entry, key, catalog)).resolve()
    return Attachment(path, _digest(entry, f"{key}_digest", catalog))


def _parts(path: Path) -> list[Path]:
    """A file, or all parts of the split model whose first part it is, as gguf-split names them."""
    named = _FIRST_PART.fullmatch(path.name)
    if named is None:
        return [path]
    stem, count = named["stem"], int(named["count"])
    return [path.with_name(f"{stem}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def _key_id(entry: Mapping[str, object], catalog: Path) -> str | None:
    if "key_id" not in entry:
        return None
    value = _text(entry, "key_id", catalog)
    if len(value) != _SHA256_HEX_CHARS or not _HEX.issuperset(value):
        raise ConfigError(f"an entry of the catalog {catalog} has no 64 hexadecimal digits under 'key_id'")
    return value


def _min_version(entry: Mapping[str, object], catalog: Path) -> int:
    value = entry.get("min_version", 0)
    if type(value) is not int or value < 0 or (value and "key_id" not in entry):
        raise ConfigError(
            f"an entry of the catalog {catalog} has a 'min_version' that is no whole number, or no 'key_id' beside it"
        )
    return value


def _digest(entry: Mapping[str, object], key: str, catalog: Path) -> str:
    value = _text(entry, key, catalog)
    digits = value.removeprefix("sha256:")
    if digits == value or len(digits) != _SHA256_HEX_CHARS or not _HEX.issuperset(digits):
        raise ConfigError(
            f"an entry of the catalog {catalog} has no sha256: and 64 lower-case hexadecimal digits under "
            f"{key!r}; `adyton-models add` writes it"
        )
    return value


def _flag(entry: Mapping[str, object], key: str, catalog: Path) -> bool:
    value = entry.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(
            f"an entry of the catalog {catalog} has something else than true or false under {key!r}"
        )
    return value


def _text(entry: Mapping[str, object], key: str, catalog: Path) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"an entry of the catalog {catalog} has no text under {key!r}")
    return value
