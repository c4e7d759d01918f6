# SPDX-License-Identifier: Apache-2.0
"""The guard: what must hold about shapes, roles and names before and after the signatures are verified.

A chain that verifies says who signed; the guard says that the signer had the right to sign *this*. It demands:

1. a quote of canonical length, followed by zero bytes at most (quotes are handed out in padded buffers);
2. TCB info and QE identity signed by a TCB signing certificate: a chain of exactly two, the leaf named so, no CA,
   not a platform's certificate, issued directly by the pinned root;
3. a platform key certified by exactly three certificates: PCK certificate with the SGX extension, PCK CA, root;
4. the PCK chain that is inside the quote, and none beside it;
5. TCB info about the PCE that certified the platform.

SECURITY: each of these separates two roles below one root. None may be dropped because "the signature verifies
anyway".
"""

from typing import Final, Literal

from cryptography import x509

from adyton_attestation.certificates import (
    TrustAnchor,
    common_name,
    der_of,
    has_sgx_extension,
    is_ca,
    issued_by,
    parse_chain,
)
from adyton_attestation.checks import Refusal
from adyton_attestation.endorsements import Endorsements, SignedDocument
from adyton_attestation.quote import CERTIFICATION_PCK_CHAIN, Quote

_SIGNING_CHAIN_CERTIFICATES: Final = 2
_PCK_CHAIN_CERTIFICATES: Final = 3


def check_length(quote: Quote) -> tuple[str, None]:
    """Demand that nothing but zero bytes follows the quote.

    Raises:
        Refusal: Something does.
    """
    if any(quote.tail):
        raise Refusal(
            expected=f"{quote.size_bytes} bytes and zeros after them",
            actual=f"{len(quote.tail)} bytes more, not all zero",
        )
    padding = f", then {len(quote.tail)} zero bytes" if quote.tail else ""
    return f"{quote.size_bytes} bytes{padding}", None


def check_signing_chains(endorsements: Endorsements, anchor: TrustAnchor) -> tuple[str, Literal[True]]:
    """Demand that TCB info and QE identity come with chains of a TCB signing certificate.

    Raises:
        Refusal: A chain has another shape, another name, another role or another root.
    """
    _check_signing_chain(endorsements.tcb_info, anchor)
    # Usually the very same certificates; then they need not be checked again.
    if endorsements.qe_identity.chain != endorsements.tcb_info.chain:
        _check_signing_chain(endorsements.qe_identity, anchor)
    return f"TCB info and QE identity name {_name(anchor, 'SGX TCB Signing')!r} below the pinned root", True


def check_pck_chain(
    quote: Quote, endorsements: Endorsements, anchor: TrustAnchor
) -> tuple[str, tuple[x509.Certificate, ...]]:
    """Demand the platform's own three certificates, and return them, leaf first.

    Raises:
        Refusal: The chain has another shape, other names, other roles or another root.
        EndorsementError: It cannot be read.
    """
    if quote.signature.certification_type != CERTIFICATION_PCK_CHAIN:
        raise Refusal(
            expected="a PCK certificate chain inside the quote (type 5)",
            actual=f"certification data of type {quote.signature.certification_type}",
        )
    chain = parse_chain(quote.signature.certification_data, "PCK chain")
    if len(chain) != _PCK_CHAIN_CERTIFICATES:
        raise Refusal("PCK certificate, PCK CA and root", f"a chain of {len(chain)}")
    leaf, intermediate, root = chain
    if der_of(root) != anchor.der:
        raise Refusal(f"a chain to the pinned root {anchor.sha256[:16]}…", f"one to {common_name(root)!r}")
    ca_names = {_name(anchor, "SGX PCK Platform CA"), _name(anchor, "SGX PCK Processor CA")}
    if common_name(intermediate) not in ca_names or not is_ca(intermediate):
        raise Refusal(f"a PCK CA ({' or '.join(sorted(ca_names))})", repr(common_name(intermediate)))
    if common_name(leaf) != _name(anchor, "SGX PCK Certificate") or is_ca(leaf):
        raise Refusal(
            f"a certificate named {_name(anchor, 'SGX PCK Certificate')!r}", repr(common_name(leaf))
        )
    if not has_sgx_extension(leaf) or has_sgx_extension(intermediate):
        raise Refusal("the SGX extension in the PCK certificate alone", "it elsewhere or nowhere")
    if not issued_by(leaf, intermediate) or not issued_by(intermediate, root):
        raise Refusal("each certificate issued by the next", "one that is not")
    if endorsements.pck_chain is not None and list(map(der_of, endorsements.pck_chain)) != list(
        map(der_of, chain)
    ):
        raise Refusal("no PCK chain beside the quote but its own", "another one")
    return f"{common_name(leaf)!r} issued by {common_name(intermediate)!r}", chain


def check_pce_identity(endorsements: Endorsements, pce_id: bytes) -> tuple[str, None]:
    """Demand that the TCB info is about the PCE that certified this platform.

    Args:
        endorsements: The endorsements.
        pce_id: From the PCK certificate, 2 bytes.

    Raises:
        Refusal: It is about another.
    """
    if endorsements.tcb_info.pce_id != pce_id:
        raise Refusal(
            f"TCB info for PCE {pce_id.hex()}, as in the PCK certificate",
            f"one for PCE {endorsements.tcb_info.pce_id.hex()}",
        )
    return f"TCB info and PCK certificate agree on PCE {pce_id.hex()}", None


def _check_signing_chain(document: SignedDocument, anchor: TrustAnchor) -> None:
    what = document.name
    if len(document.chain) != _SIGNING_CHAIN_CERTIFICATES:
        raise Refusal(f"{what}: signing certificate and root", f"a chain of {len(document.chain)}")
    leaf, root = document.chain
    if der_of(root) != anchor.der:
        raise Refusal(
            f"{what}: a chain to the pinned root {anchor.sha256[:16]}…", f"one to {common_name(root)!r}"
        )
    expected = _name(anchor, "SGX TCB Signing")
    if common_name(leaf) != expected:
        raise Refusal(f"{what}: signed by {expected!r}", f"by {common_name(leaf)!r}")
    if is_ca(leaf) or has_sgx_extension(leaf):
        raise Refusal(f"{what}: a signing certificate and nothing else", "a CA's or a platform's certificate")
    if not issued_by(leaf, root):
        raise Refusal(f"{what}: a signing certificate issued by the root", "one that is not")


def _name(anchor: TrustAnchor, role: str) -> str:
    return f"{anchor.vendor} {role}"
