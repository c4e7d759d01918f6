# SPDX-License-Identifier: Apache-2.0
"""An enclave image: the directory that ``adyton-host manifest`` makes, and in which Gramine is started.

::

    DIR/NAME.manifest          what runs and which files it may read; gramine-direct starts this
    DIR/NAME.manifest.sgx      the same, as it was signed; gramine-sgx starts this
    DIR/NAME.sig               the SIGSTRUCT: MRENCLAVE and the signer
    DIR/root/                  the measured files; among them the enclave's configuration, enclave.toml

An image is complete: nothing that an operator says at start reaches the enclave. What it listens on, what it serves
and how, stands in its measured configuration, so another model is another image.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton_host.catalog import CatalogModel
from adyton_host.enclave_config import FILE_NAME
from adyton_protocol.errors import ConfigError

MODELS_DIR: Final = "models"
_DIRECT: Final = ".manifest"
_SGX: Final = ".manifest.sgx"
_SIGSTRUCT: Final = ".sig"
_MAX_MANIFEST_BYTES: Final = 64 * 1024 * 1024
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_RENDER: Final = "`adyton-host manifest render --output {path}` makes an image"
_SIGN: Final = "`adyton-host manifest sign {path} --key KEY.pem` signs one"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveImage:
    """An image on disk, as far as the host has to understand it.

    Attributes:
        directory: Where it lies, absolute.
        name: What Gramine is told; the stem of its files.
        manifest: The parsed manifest.
        port: The loopback port on which its configuration makes the enclave listen.
        attester: ``gramine`` or ``simulated``, as its configuration says.
        models: What it serves, the first one first; with the files behind the enclave's own paths.
        model_files: What the manifest allows it to read without a hash, which are the weights; the host's paths.
        config_path: Where its configuration lies.
        config_sha256: What the manifest trusts that file as, in hexadecimal digits.
        config: The exact text of it.
    """

    directory: Path
    name: str
    manifest: Mapping[str, object]
    port: int
    attester: str
    models: tuple[CatalogModel, ...]
    model_files: tuple[Path, ...]
    config_path: Path
    config_sha256: str
    config: str

    @property
    def trusted(self) -> dict[str, str | None]:
        """Every file that the manifest trusts, relative to the image, and its SHA-256 where that is written."""
        return dict(_trusted(self.manifest))

    @property
    def cpu_features(self) -> dict[str, str]:
        """``sgx.cpu_features``: what the processor must have, may have, or has to hide."""
        return {key: str(mode) for key, mode in _table(_table(self.manifest, "sgx"), "cpu_features").items()}

    @property
    def application(self) -> Path:
        """What ``gramine-sgx`` and ``gramine-direct`` take as their one argument."""
        return self.directory / self.name

    @property
    def sigstruct(self) -> Path:
        """The signature over its measurement."""
        return self.directory / (self.name + _SIGSTRUCT)

    @property
    def sgx_manifest(self) -> Path:
        """The signed manifest."""
        return self.directory / (self.name + _SGX)

    @property
    def enclave_size_bytes(self) -> int:
        """Address space of the enclave; without EDMM it is committed as a whole when it starts."""
        return size_bytes(_table(self.manifest, "sgx").get("enclave_size", 0))

    @property
    def edmm(self) -> bool:
        """Whether memory is added while it runs."""
        return _table(self.manifest, "sgx").get("edmm_enable") is True

    @property
    def committed_bytes(self) -> int:
        """Memory that is taken when it starts, used or not."""
        return 0 if self.edmm else self.enclave_size_bytes

    @property
    def mrenclave(self) -> str | None:
        """What the SIGSTRUCT says is measured, in hexadecimal digits; None without one.

        Read from its fixed place (Intel SDM volume 3D, table 38-19: ENCLAVEHASH at byte 960 of 1808). The processor
        checks it, and so does the client; the host only shows it.
        """
        try:
            signed = self.sigstruct.read_bytes()
        except OSError:
            return None
        return signed[_ENCLAVE_HASH].hex() if len(signed) == _SIGSTRUCT_BYTES else None


_SIGSTRUCT_BYTES: Final = 1808
_ENCLAVE_HASH: Final = slice(960, 992)


def load_image(directory: Path, *, signed: bool) -> EnclaveImage:
    """Read an image.

    Args:
        directory: Where.
        signed: Whether it is for ``gramine-sgx``, and so has to be signed.

    Raises:
        ConfigError: A file is missing or not what it should be, or it is signed for another configuration.
    """
    directory = directory.absolute()
    suffix = _SGX if signed else _DIRECT
    found = sorted(path for path in directory.glob("*" + suffix) if path.name.endswith(suffix))
    if len(found) != 1:
        what = "no" if not found else "more than one"
        raise ConfigError(
            f"{directory} holds {what} *{suffix}; {(_SIGN if signed else _RENDER).format(path=directory)}"
        )
    name = found[0].name.removesuffix(suffix)
    if signed and not (directory / (name + _SIGSTRUCT)).is_file():
        raise ConfigError(f"{directory / (name + _SIGSTRUCT)} is missing; {_SIGN.format(path=directory)}")
    manifest = _toml(found[0])
    config_path, digest = _measured_configuration(directory, manifest)
    config = _toml(config_path)
    port, attester = config.get("listen_port"), config.get("attester")
    if type(port) is not int or port <= 0:
        raise ConfigError(f"{config_path} names no listen_port; an image needs a fixed one")
    return EnclaveImage(
        directory=directory,
        name=name,
        manifest=manifest,
        port=port,
        attester=str(attester),
        models=tuple(_model(model, directory) for model in _models(config)),
        model_files=tuple(
            directory / str(uri).removeprefix("file:") for uri in _entries(manifest, "allowed_files")
        ),
        config_path=config_path,
        config_sha256=digest,
        config=config_path.read_text(encoding="utf-8"),
    )


def check_configuration(image: EnclaveImage) -> None:
    """Compare the configuration with what was measured.

    Gramine would not let the enclave read another one; here the operator learns which file it is.

    Raises:
        ConfigError: It was changed after the manifest was rendered.
    """
    if image.config_sha256 != hashlib.sha256(image.config.encode("utf-8")).hexdigest():
        raise ConfigError(
            f"{image.config_path} was changed after the manifest was rendered. Render and sign it again (another "
            "MRENCLAVE, so clients need the new reference values), or put the old file back"
        )


def trusted_sizes(image: EnclaveImage) -> dict[str, int]:
    """Bytes of each file that Gramine hashes, by its path below the image; those that are missing count as -1."""
    found = {}
    for uri in image.trusted:
        path = image.directory / uri
        found[uri] = path.stat().st_size if path.is_file() else -1
    return found


def _measured_configuration(directory: Path, manifest: Mapping[str, object]) -> tuple[Path, str]:
    found = [(uri, digest) for uri, digest in _trusted(manifest) if uri.rpartition("/")[2] == FILE_NAME]
    if len(found) != 1 or found[0][1] is None:
        raise ConfigError(
            f"the manifest in {directory} does not list one {FILE_NAME} with its hash, so it is not measured; "
            "render it with `adyton-host manifest render`"
        )
    return directory / found[0][0], str(found[0][1])


def _trusted(manifest: Mapping[str, object]) -> list[tuple[str, str | None]]:
    """Paths of the trusted files, relative to the image where they are, and their hashes where they are written."""
    found: list[tuple[str, str | None]] = []
    for entry in _entries(manifest, "trusted_files"):
        uri, digest = (entry.get("uri"), entry.get("sha256")) if isinstance(entry, Mapping) else (entry, None)
        found.append((str(uri).removeprefix("file:"), digest if isinstance(digest, str) else None))
    return found


def size_bytes(value: object) -> int:
    """A size as Gramine writes it: a number of bytes, or a text such as ``"8G"``; 0 for anything else."""
    if type(value) is int:
        return value
    text = str(value).strip()
    unit = _UNITS.get(text[-1:].upper(), 1)
    number = text[:-1] if unit > 1 else text
    try:
        return int(number, 0) * unit
    except ValueError:
        return 0


def _entries(manifest: Mapping[str, object], key: str) -> list[object]:
    value = _table(manifest, "sgx").get(key, [])
    return value if isinstance(value, list) else []


def _table(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = document.get(key, {})
    return value if isinstance(value, Mapping) else {}


def _models(config: Mapping[str, object]) -> list[Mapping[str, object]]:
    models = config.get("model", [])
    return [model for model in models if isinstance(model, Mapping)] if isinstance(models, list) else []


def _model(entry: Mapping[str, object], directory: Path) -> CatalogModel:
    """What the host has to know of a model; the enclave reads the rest itself."""
    named = entry.get("paths", [entry.get("path")])
    names = [Path(name).name for name in (named if isinstance(named, list) else []) if isinstance(name, str)]
    sealed = _table(entry, "sealed").get("key_id")
    paths = [directory / MODELS_DIR / name for name in names] or [directory / MODELS_DIR]
    return CatalogModel(
        name=str(entry.get("name")),
        path=paths[0],
        more_paths=tuple(paths[1:]),
        content=str(entry.get("content", "")),
        weights=str(entry.get("weights", "")),
        license=str(entry.get("license", "")),
        n_ctx=n_ctx if type(n_ctx := entry.get("n_ctx")) is int else 0,
        role=str(entry.get("role", "generator")),
        sampling={},
        key_id=sealed if isinstance(sealed, str) else None,
    )


def _toml(path: Path) -> Mapping[str, object]:
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_MANIFEST_BYTES} bytes")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}; {_RENDER.format(path=path.parent)}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
