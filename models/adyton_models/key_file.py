# SPDX-License-Identifier: Apache-2.0
"""The file of a model key: the key, and for which models it was used. Readable by its owner alone.

::

    {"version": 1, "key_id": "…", "key": "…",
     "models": [{"name": "mine", "content": "sha256:…", "identity": "sha256:…", "model_version": 1}]}

Whoever has this file and the sealed model has the model. Losing it loses the sealed model.
"""

import contextlib
import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from adyton_protocol.digests import Digest, as_digest
from adyton_protocol.errors import ConfigError, LocalProtocolError
from adyton_protocol.sealed_model import ModelKey

VERSION: Final = 1
_OWNER_ONLY: Final = 0o600
_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedUse:
    """A model that was sealed under a key.

    Attributes:
        name: By which the appliance serves it.
        content: Of its files.
        identity: That clients see, as it was when the model was sealed; the key is released to nothing else.
        model_version: Of the sealed file.
    """

    name: str
    content: Digest
    identity: Digest
    model_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """A key and its uses."""

    key: ModelKey
    models: tuple[SealedUse, ...] = ()

    def used_for(self, name: str) -> SealedUse | None:
        """The newest use under a name."""
        uses = [use for use in self.models if use.name == name]
        return max(uses, key=lambda use: use.model_version) if uses else None

    def with_use(self, use: SealedUse) -> "KeyFile":
        """With one more use, in the place of one of the same name and version."""
        same = {(other.name, other.model_version): other for other in self.models}
        same[use.name, use.model_version] = use
        return replace(self, models=tuple(same.values()))


def read_key_file(path: Path) -> KeyFile:
    """Read a key.

    Raises:
        ConfigError: The file is missing, readable by others, or no key file. The message holds nothing of it.
    """
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()[:_MAX_BYTES]
    except OSError as error:
        raise ConfigError(f"cannot read the key file {path}: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"the key file {path} can be used by others; chmod 600 it, and think about who read it"
        )
    try:
        document = json.loads(data)
        if document["version"] != VERSION:
            raise ConfigError(f"the key file {path} is of another version than {VERSION}")
        key = ModelKey(bytes.fromhex(document["key"]))
        models = tuple(
            SealedUse(
                name=str(use["name"]),
                content=as_digest(use["content"]),
                identity=as_digest(use["identity"]),
                model_version=int(use["model_version"]),
            )
            for use in document["models"]
        )
    except (ValueError, KeyError, TypeError, LocalProtocolError):
        # SECURITY: not chained; a parser's message quotes what it read.
        raise ConfigError(f"{path} is not a key file") from None
    if key.key_id.hex() != document.get("key_id"):
        raise ConfigError(f"the key file {path} is damaged: its key has another id than it says")
    return KeyFile(key=key, models=models)


def write_key_file(path: Path, file: KeyFile, *, new: bool) -> None:
    """Write a key so that only its owner can read it, in one step.

    Args:
        path: Where.
        file: What.
        new: Refuse to replace a file: a key that is overwritten takes its models with it.

    Raises:
        ConfigError: The file is there already, or cannot be written.
    """
    document = {
        "version": VERSION,
        "key_id": file.key.key_id.hex(),
        "key": file.key.reveal().hex(),
        "models": [asdict(use) for use in file.models],
    }
    if new and path.exists():
        raise ConfigError(
            f"{path} exists; a key is never overwritten (use it with --key, or name another file)"
        )
    draft = None
    try:
        # mkstemp makes a file that only its owner can use.
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            json.dump(document, stream, indent=1)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(draft).chmod(_OWNER_ONLY)
        if new:
            # Fails when somebody was faster.
            os.link(draft, path)
        else:
            Path(draft).replace(path)
            draft = None
    except OSError as error:
        raise ConfigError(f"cannot write the key file {path}: {error.strerror}") from error
    finally:
        if draft is not None:
            with contextlib.suppress(OSError):
                Path(draft).unlink()
