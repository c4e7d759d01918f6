# SPDX-License-Identifier: Apache-2.0
"""The enclave uses nothing that Gramine lacks. What Gramine lacks is found out natively by nobody.

The list is Gramine 1.9's: calls that its table of system calls leaves empty, and what Python makes of them.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ABSENT = {
    # Reads and writes by offset into several buffers: only pread and pwrite are there.
    "preadv", "pwritev", "copy_file_range", "sendfile", "splice", "memfd_create", "posix_fadvise",
    # Python raises where these are missing.
    "symlink", "link", "utime", "eventfd", "timerfd_create", "pidfd_open", "getloadavg", "times",
    # A second enclave, and peers that an enclave cannot reach.
    "fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "AF_UNIX", "AF_VSOCK", "AF_NETLINK",
}  # fmt: skip
# resource.getrusage raises; mapped files are copied, locks of files refused.
MODULES = {"resource", "multiprocessing", "subprocess", "fcntl", "mmap", "concurrent.futures.process"}
MEASURED = [
    line
    for line in (ROOT / "manifests" / "measured-files.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def source(name: str) -> Path:
    """Where a measured module lies in the tree."""
    return ROOT / {"adyton_enclave": "enclave", "adyton_protocol": "protocol"}[name.partition("/")[0]] / name


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_module_asks_for_nothing_that_gramine_lacks(name: str) -> None:
    """Neither by attribute nor by import; the integration tests under Gramine find the rest."""
    tree = ast.parse(source(name).read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"os", "socket"}
    }
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert not used & ABSENT
    assert not imported & MODULES
