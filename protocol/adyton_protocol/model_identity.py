# SPDX-License-Identifier: Apache-2.0
"""The identity of a model: one digest over what makes it answer the way it does, apart from measured code.

The enclave computes it for what it loaded and puts it into the attested keyset; whoever writes a policy computes it
for what he wants to accept. Both use this function, and it knows what a configuration means that leaves something
out: the enclave takes its sampling defaults from here, and a test holds the engine's cache types to these.
"""

from dataclasses import asdict, dataclass
from typing import Final

from adyton_protocol.digests import SHA256_BYTES, Digest, jcs, sha256_hex
from adyton_protocol.errors import LocalProtocolError

VERSION: Final = 1
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """Sampling of a request that says nothing else; the same defaults as llama.cpp's own tools have."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheProfile:
    """What of the KV cache decides the bits of an answer; the default is batch-invariant."""

    kv_type_k: str = "f16"
    kv_type_v: str = "q8_0"
    flash_attention: bool = True


def model_identity(
    *, gguf_sha256: str, n_ctx: int, sampling: SamplingDefaults, cache: CacheProfile
) -> Digest:
    """Return the identity of a model.

    Args:
        gguf_sha256: SHA-256 of the file (weights, tokenizer, chat template, quantisation): 64 lower-case hex digits.
        n_ctx: Most tokens of prompt and answer together.
        sampling: Defaults of requests.
        cache: Types of the KV cache.

    Raises:
        LocalProtocolError: The digest is not of its form.
    """
    if len(gguf_sha256) != 2 * SHA256_BYTES or not _HEX.issuperset(gguf_sha256):
        raise LocalProtocolError("the digest of a model file has 64 lower-case hexadecimal digits")
    facts = {
        "version": VERSION,
        "gguf": f"sha256:{gguf_sha256}",
        "n_ctx": n_ctx,
        # As floats, so that 1 and 1.0 in a configuration are one identity.
        "sampling": {
            "temperature": float(sampling.temperature),
            "top_p": float(sampling.top_p),
            "top_k": sampling.top_k,
            "min_p": float(sampling.min_p),
        },
        **asdict(cache),
    }
    return sha256_hex(jcs(facts))
