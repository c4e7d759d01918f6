# SPDX-License-Identifier: Apache-2.0
"""A directory of kept files: which of them are receipts, and which report each receipt goes with.

What a file is, its content says, and not its name: a receipt file, a report file, a search file (all as ``adyton ask``
writes them), something else that is JSON, or damage. Links are not followed and only regular files are opened, so that
an archive from elsewhere can neither lead out of its directory nor make a reader wait.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from adyton.receipts import MAX_FILE_BYTES, ReportFile
from adyton.replay import MAX_SEARCH_FILE_BYTES, SearchFile
from adyton_protocol.digests import Digest
from adyton_protocol.errors import AdytonError, ConfigError
from adyton_protocol.receipt import Receipt, receipt_from_json
from adyton_protocol.strict_json import JsonObject, parse_json

MAX_CANDIDATES: Final = 8
"""How many report files are tried for one receipt; usually there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReceipt:
    """A receipt file or a search file.

    Attributes:
        path: Where it is.
        receipt: What it holds, parsed and not verified.
        is_search: Whether it is a search file, which holds its own evidence.
    """

    path: Path
    receipt: Receipt
    is_search: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReport:
    """A report file; where it is, and the digest of the keyset that it is about."""

    path: Path
    keyset_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A file that cannot be read as what it ought to be: where it is, the error's code, and why."""

    path: Path
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What a directory holds, each in the order of the paths.

    Attributes:
        root: The directory.
        receipts: Receipt files and search files.
        reports: Report files.
        damaged: Files ``*.json`` that cannot be read.
        others: Paths of files ``*.json`` that are something else, and of links.
    """

    root: Path
    receipts: tuple[KeptReceipt, ...]
    reports: tuple[KeptReport, ...]
    damaged: tuple[Damaged, ...]
    others: tuple[Path, ...]

    def reports_for(self, kept: KeptReceipt) -> tuple[Path, ...]:
        """Return the report files to try, the likeliest first.

        A report goes with a receipt when it is about the keyset that the receipt names: in the same directory and named
        alike, then in the same directory, then anywhere. If there is none, one that is named alike is tried anyway, so
        that the finding says what is wrong with it.
        """
        twin = kept.path.with_name(kept.path.name.replace("receipt", "report"))
        fitting = [item.path for item in self.reports if item.keyset_digest == kept.receipt.keyset_digest]
        fitting.sort(key=lambda path: (path != twin, path.parent != kept.path.parent, path))
        alike = [item.path for item in self.reports if item.path == twin]
        return tuple((fitting or alike)[:MAX_CANDIDATES])

    def name(self, path: Path) -> str:
        """Return a path below the root as text; bytes of a name that are no text are replaced."""
        return os.fsencode(path.relative_to(self.root)).decode("utf-8", "replace")


def read_archive(root: Path) -> Archive:
    """Look at every file ``*.json`` below a directory; goes on over whatever cannot be read.

    Args:
        root: The directory; what is in it is attacker-controlled.

    Raises:
        ConfigError: It is no directory.
    """
    if not root.is_dir():
        raise ConfigError(f"{root} is not a directory")
    found: list[KeptReceipt | KeptReport | Damaged | Path] = []
    for path in _files(root):
        try:
            found.append(_classify(path))
        except AdytonError as error:
            found.append(Damaged(path=path, code=error.code, reason=str(error)))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            found.append(Damaged(path=path, code="unreadable", reason=f"cannot be read: {reason}"))
    return Archive(
        root=root,
        receipts=tuple(item for item in found if isinstance(item, KeptReceipt)),
        reports=tuple(item for item in found if isinstance(item, KeptReport)),
        damaged=tuple(item for item in found if isinstance(item, Damaged)),
        others=tuple(item for item in found if isinstance(item, Path)),
    )


def read_regular(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a regular file of bounded size.

    Raises:
        ConfigError: It is larger, or no regular file.
        OSError: It cannot be read.
    """
    # SECURITY: no link is followed and no pipe waited for, also if the file was exchanged since it was listed.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError("not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ConfigError(f"larger than the limit of {limit} bytes")
    return data


def _files(root: Path) -> Iterator[Path]:
    for directory, below, names in os.walk(root):
        below.sort()
        for name in sorted(names):
            if name.endswith(".json"):
                yield Path(directory, name)


def _classify(path: Path) -> KeptReceipt | KeptReport | Path:
    if not stat.S_ISREG(path.lstat().st_mode):
        return path
    kind, document, data = _open(path)
    if kind == "search":
        receipt = receipt_from_json(SearchFile.parse(data).receipt)
        return KeptReceipt(path=path, receipt=receipt, is_search=True)
    if kind == "receipt":
        receipt = receipt_from_json(document.get("receipt", document))
        return KeptReceipt(path=path, receipt=receipt, is_search=False)
    if kind == "report":
        report = ReportFile.of_json(document).parse_report()
        return KeptReport(path=path, keyset_digest=report.keyset.digest())
    return path


def _open(path: Path) -> tuple[Literal["search", "receipt", "report", "other"], JsonObject, bytes]:
    data = read_regular(path, MAX_SEARCH_FILE_BYTES)
    try:
        value = parse_json(data, max_bytes=MAX_FILE_BYTES, what="file", error=ConfigError)
    except ConfigError:
        # A search file may be larger, and has numbers with fractions; whatever it is that is neither is damaged.
        if b'"transcript"' not in data:
            raise
        return "search", {}, data
    if not isinstance(value, dict):
        return "other", {}, data
    if "transcript" in value:
        return "search", value, data
    if "receipt" in value or "event_log" in value:
        return "receipt", value, data
    return ("report" if "report" in value or "attestation" in value else "other"), value, data
