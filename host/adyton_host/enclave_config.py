# SPDX-License-Identifier: Apache-2.0
"""Writes the one configuration file that an enclave reads.

The enclave hashes what it read into its attested keyset, so an operator cannot change an answer here without
clients seeing another configuration digest.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adyton_host.catalog import CatalogModel
from adyton_protocol.errors import ConfigError

FILE_NAME: Final = "enclave.toml"
_VERSION: Final = 1
_OVERRIDES: Final = frozenset(
    {"epoch_seconds", "overlap_seconds", "authorities", "privacy", "limits", "engine", "ra_tls_port"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveConfig:
    """What the host decides about an enclave.

    Attributes:
        simulation_platform: Directory with the simulated platform's key and certificates; None for an enclave that
            Gramine vouches for.
        models: The models to load.
        overrides: The operator's own members: ``epoch_seconds``, ``[limits]`` and the like.
        ra_tls_port: Loopback port of the second channel; None leaves it closed.
    """

    simulation_platform: Path | None
    models: tuple[CatalogModel, ...]
    overrides: Mapping[str, object] = field(default_factory=dict)
    ra_tls_port: int | None = None

    def to_toml(self, *, port: int) -> str:
        """The file's text, listening on loopback ``port``."""
        document: dict[str, object] = {
            "version": _VERSION,
            "listen_host": "127.0.0.1",
            "listen_port": port,
            **_attester(self.simulation_platform),
            # Left out when closed, so that a configuration that asks for nothing new keeps its digest.
            **({} if self.ra_tls_port is None else {"ra_tls_port": self.ra_tls_port}),
            **self.overrides,
            "model": [_model_table(model) for model in self.models],
        }
        return render_toml(document)


def _attester(simulation_platform: Path | None) -> dict[str, object]:
    if simulation_platform is None:
        return {"attester": "gramine"}
    return {"attester": "simulated", "simulation_platform": str(simulation_platform)}


def read_overrides(path: Path) -> Mapping[str, object]:
    """Read an operator's ``--enclave-config`` file.

    Raises:
        ConfigError: It is missing, is not TOML, or sets what only the host may set.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    unknown = set(document) - _OVERRIDES
    if unknown:
        raise ConfigError(
            f"{path} may set {', '.join(sorted(_OVERRIDES))}, but not {', '.join(sorted(unknown))}"
        )
    return document


def _model_table(model: CatalogModel) -> dict[str, object]:
    table: dict[str, object] = {
        "name": model.name,
        **({"paths": [str(path) for path in model.files]} if model.more_paths else {"path": str(model.path)}),
        "content": model.content,
        "weights": model.weights,
        "role": model.role,
        "n_ctx": model.n_ctx,
        "license": model.license,
    }
    # Left out when false, so that a configuration that asks for nothing new keeps its digest.
    if model.embeddings:
        table["embeddings"] = True
    if model.matryoshka:
        table["matryoshka"] = True
    if model.scorer is not None:
        table["scorer"] = model.scorer
    for key, attachment in (("adapter", model.adapter), ("head", model.head)):
        if attachment is not None:
            table |= {key: str(attachment.path), f"{key}_digest": attachment.digest}
    if model.key_id is not None:
        table["sealed"] = {"key_id": model.key_id, "min_version": model.min_version}
    if model.sampling:
        table["sampling"] = dict(model.sampling)
    return table


def render_toml(document: Mapping[str, object]) -> str:
    """The text of a TOML document of plain values, tables and arrays of tables."""
    return "".join(_render(document))


def _render(document: Mapping[str, object], prefix: str = "") -> list[str]:
    """TOML of a table: plain values first, as the format demands, then sub-tables, then arrays of tables."""
    plain: list[str] = []
    nested: list[str] = []
    for key, value in document.items():
        name = prefix + key
        match value:
            case Mapping():
                nested += [f"\n[{name}]\n", *_render(value, name + ".")]
            case [Mapping(), *_] if all(isinstance(item, Mapping) for item in value):
                for item in (item for item in value if isinstance(item, Mapping)):
                    nested += [f"\n[[{name}]]\n", *_render(item, name + ".")]
            case _:
                plain.append(f"{key} = {_scalar(value)}\n")
    return plain + nested


def _scalar(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            # JSON's escapes are TOML's, but for the delete character, which JSON leaves as it is.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(_scalar(item) for item in value)}]"
        case _:
            raise ConfigError(f"the enclave's configuration cannot hold a {type(value).__name__}")
