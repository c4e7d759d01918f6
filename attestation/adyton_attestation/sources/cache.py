# SPDX-License-Identifier: Apache-2.0
"""Endorsements on disk: one file per platform family, replaced in one step.

::

    DIR/sgx-00906ed50000-platform.json
        {"version": 1, "source": "...", "channel": "standard", "fetched_at": 1790000000, "endorsements": {...}}

``endorsements`` is ``QuoteCollateralV3`` JSON. A file that cannot be read, or that is refused by
:func:`~adyton_attestation.sources.vetting.vet`, counts as absent: it is a cache, and whoever damages it only makes us
ask again.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adyton_attestation.certificates import TrustAnchor
from adyton_attestation.sources.family import PlatformFamily
from adyton_attestation.sources.vetting import VettedSet, vet
from adyton_protocol.digests import jcs
from adyton_protocol.errors import ConfigError, EndorsementError
from adyton_protocol.media import MAX_ENDORSEMENTS_BYTES
from adyton_protocol.strict_json import MAX_SAFE_INTEGER, Members, parse_json

CACHE_VERSION: Final = 1

_MAX_FILE_BYTES: Final = MAX_ENDORSEMENTS_BYTES + 4096
_MAX_NAME_CHARS: Final = 512
_SUFFIX: Final = ".json"
_MODE: Final = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One set in a cache.

    Attributes:
        vetted: The set.
        source: Where it came from, in words.
        channel: Label of the channel that was asked for.
        fetched_s: Unix time at which it was had.
    """

    vetted: VettedSet
    source: str
    channel: str
    fetched_s: int


class EndorsementCache:
    """A directory of sets below one root."""

    def __init__(self, directory: Path, anchor: TrustAnchor) -> None:
        """Take the directory, which need not exist yet, and the root that its sets must stand below."""
        self.directory: Final = directory
        self._anchor = anchor

    def load(self, family: PlatformFamily) -> Kept | None:
        """Return the set of a family, or None."""
        return self._read(self._path(family), family)

    def store(self, kept: Kept) -> None:
        """Keep a set in place of the one before.

        Raises:
            ConfigError: The directory cannot be written.
        """
        document = {
            "version": CACHE_VERSION,
            "source": kept.source,
            "channel": kept.channel,
            "fetched_at": kept.fetched_s,
            "endorsements": json.loads(kept.vetted.data),
        }
        write_atomically(
            self._path(kept.vetted.family), json.dumps(document, indent=1).encode("utf-8") + b"\n"
        )

    def all(self) -> Iterator[Kept]:
        """Yield every set, ordered by family; files that are none are passed over."""
        try:
            names = sorted(path.name for path in self.directory.iterdir())
        except OSError:
            return
        for name in names:
            family = PlatformFamily.parse(name.removesuffix(_SUFFIX)) if name.endswith(_SUFFIX) else None
            kept = None if family is None else self.load(family)
            if kept is not None:
                yield kept

    def _path(self, family: PlatformFamily) -> Path:
        return self.directory / f"{family.label}{_SUFFIX}"

    def _read(self, path: Path, family: PlatformFamily) -> Kept | None:
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
            members = Members(
                parse_json(data, max_bytes=_MAX_FILE_BYTES, what="cache", error=EndorsementError),
                "cache",
                EndorsementError,
            )
            members.integer("version", minimum=CACHE_VERSION, maximum=CACHE_VERSION)
            return Kept(
                # SECURITY: as strict as with a source, so that what somebody left in the directory replaces nothing.
                vetted=vet(jcs(members.raw("endorsements")), self._anchor, family),
                source=members.text("source", max_chars=_MAX_NAME_CHARS),
                channel=members.text("channel", max_chars=_MAX_NAME_CHARS),
                fetched_s=members.integer("fetched_at", minimum=0, maximum=MAX_SAFE_INTEGER),
            )
        except (OSError, EndorsementError):
            return None


def write_atomically(path: Path, data: bytes) -> None:
    """Write a public file so that a reader sees the old one or the new one.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(_MODE)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as cause:
        raise ConfigError(f"{path} cannot be written: {cause.strerror}") from cause
