# SPDX-License-Identifier: Apache-2.0
"""Size buckets: what the length of a sealed message may tell the host.

Requests and unary responses are padded to a bucket with Binary HTTP's trailing zeros. Streams are padded
with SSE comments, to sizes that the enclave's privacy profile chooses. Padding coarsens sizes; it does not
hide timing, and repeated observation still adds up.
"""

from typing import Final

from adyton_protocol.errors import LocalProtocolError

MIN_BUCKET_BYTES: Final = 512
STEP_BYTES: Final = 16 * 1024
"""Up to here buckets double; from here on they are multiples of it."""


def bucket(length: int) -> int:
    """Return the size, in bytes, to which a message of ``length`` bytes is padded; never less than it.

    Raises:
        LocalProtocolError: ``length`` is negative.
    """
    if length < 0:
        raise LocalProtocolError("a length is not negative")
    if length <= MIN_BUCKET_BYTES:
        return MIN_BUCKET_BYTES
    if length <= STEP_BYTES:
        return 1 << (length - 1).bit_length()
    return -(-length // STEP_BYTES) * STEP_BYTES
