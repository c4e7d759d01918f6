# SPDX-License-Identifier: Apache-2.0
"""Compares the files of an image with what its manifest says about them.

Gramine does the same when it opens a file. Here it is done before anything is signed, and all at once.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from adyton_host.manifest.render import ROOT
from adyton_host.manifest.view import View
from adyton_protocol.errors import ConfigError

_SHOWN: Final = 5


def check_files(manifest: View, directory: Path) -> int:
    """Hash every trusted file below ``directory``.

    Returns:
        How many there are.

    Raises:
        ConfigError: One is missing or changed, or the file tree holds one that the manifest does not list.
    """
    wrong = list(_differences(manifest, directory))
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ConfigError(
            f"the files of {directory} are not those of its manifest: {'; '.join(wrong[:_SHOWN])}{more}. "
            "Render it again"
        )
    return len(manifest.trusted)


def _differences(manifest: View, directory: Path) -> Iterator[str]:
    listed: set[Path] = set()
    for uri, digest in manifest.trusted:
        path = directory / uri.removeprefix("file:")
        listed.add(path)
        if not path.is_file():
            yield f"{uri} is missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            yield f"{uri} was changed"
    for path in sorted((directory / ROOT).rglob("*")):
        # The library OS is listed by itself, not among the trusted files, unless it is both.
        if not path.is_dir() and path not in listed and not _is_entrypoint(manifest, directory, path):
            yield f"{path.relative_to(directory)} is not listed"


def _is_entrypoint(manifest: View, directory: Path, path: Path) -> bool:
    uri = manifest.option("loader.entrypoint.uri")
    return isinstance(uri, str) and directory / uri.removeprefix("file:") == path
