# SPDX-License-Identifier: Apache-2.0
"""The measurement that stands in for MRENCLAVE where no hardware measures.

The simulated attester computes it over its own files, and the installation step over the same files on the
client's side. It imitates what a measurement is for (another file, another value), not what it is worth:
code that runs outside an enclave can claim any value.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from adyton_protocol.errors import LocalProtocolError

MRENCLAVE_BYTES: Final = 32

UNMEASURED: Final = frozenset({"adyton_enclave/simulation.py", "adyton_enclave/probe.py"})
"""Files of the enclave that are not measured, because a production enclave does not contain them."""

_DOMAIN: Final = b"adyton simulated mrenclave v1\x00"
_NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)+")


def simulated_mrenclave(files: Mapping[str, bytes]) -> bytes:
    """Measure a set of files.

    ::

        SHA-256(domain || for each name in byte order: len(name) as u32 BE || name || SHA-256(content))

    Args:
        files: Contents by package-relative POSIX path, for example ``adyton_enclave/gateway.py``.

    Returns:
        32 bytes.

    Raises:
        LocalProtocolError: No files, or a name that is not a plain relative path.
    """
    if not files:
        raise LocalProtocolError("an empty set of files has no measurement")
    state = hashlib.sha256(_DOMAIN)
    for name in sorted(files):
        if _NAME_PATTERN.fullmatch(name) is None:
            raise LocalProtocolError(f"not a package-relative path: {name!r}")
        encoded = name.encode("ascii")
        state.update(len(encoded).to_bytes(4, "big") + encoded + hashlib.sha256(files[name]).digest())
    return state.digest()
