# SPDX-License-Identifier: Apache-2.0
"""Real quotes with real collateral, from the source distribution of dcap-qvl, fetched by pip at test time.

The bytes are never part of this repository. pip is asked for the source distribution of the pinned version; so that
it need not build anything, a stand-in for the build backend answers pip's question for the name and the version.
No code of the distribution runs. The archive is kept in the user's cache directory and checked by its digest.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

NAME, VERSION = "dcap-qvl", "0.7.0"
SHA256 = "f1c442dc494a6a3ccfff587dfa22ea3a7459c90d940a3dd20d234332a025ed03"
ARCHIVE = f"dcap_qvl-{VERSION}.tar.gz"

_BACKEND = f"""
from pathlib import Path

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    directory = Path(metadata_directory) / "dcap_qvl-{VERSION}.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text("Metadata-Version: 2.1\\nName: {NAME}\\nVersion: {VERSION}\\n")
    return directory.name
"""


class NotAvailable(Exception):
    """The samples cannot be had; the message says why."""


def cache_directory() -> Path:
    """Where the archive is kept between runs; outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "adyton" / "test-samples"


def samples() -> dict[str, bytes]:
    """Return the sample files by name.

    Raises:
        NotAvailable: Offline, or the archive is not the one that we know.
    """
    archive = cache_directory() / ARCHIVE
    if not archive.is_file() or hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        _download(archive.parent)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        raise NotAvailable(f"{ARCHIVE} does not have the digest that we know")
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as files:
        for member in files:
            path = Path(member.name)
            content = files.extractfile(member) if path.parent.name == "sample" else None
            if content is not None:
                found[path.name] = content.read()
    return found


def _download(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as backend:
        (Path(backend) / "maturin.py").write_text(_BACKEND)
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input",
             "--retries", "1", "--no-deps", "--no-binary", NAME, "--no-build-isolation",
             "--dest", str(directory), f"{NAME}=={VERSION}"],
            env=os.environ | {"PYTHONPATH": backend}, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
    if done.returncode != 0 or not (directory / ARCHIVE).is_file():
        reason = (done.stderr.strip().splitlines() or ["pip found nothing"])[-1]
        raise NotAvailable(f"offline? pip says: {reason}")
