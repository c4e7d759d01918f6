# SPDX-License-Identifier: Apache-2.0
"""Statements in words, for people who are about to sign or believe them."""

from collections.abc import Iterator

from adyton_attestation.release_statement import SignedStatement, StatedEnclave
from adyton_attestation.times import format_time


def describe(signed: SignedStatement) -> Iterator[str]:
    """All that a statement says, a line each."""
    statement = signed.statement
    yield f"release {statement.release} of {statement.product}, named {statement.name}"
    yield f"  holds from {format_time(statement.not_before_s)} until {format_time(statement.not_after_s)}"
    withdrawn = statement.minimum_release - 1
    yield f"  withdraws {'nothing' if not withdrawn else f'every release up to {withdrawn}'}"
    if not statement.enclaves:
        yield "  names no enclave: it only withdraws"
    for enclave in statement.enclaves:
        yield from _enclave(enclave)
    for key, _ in signed.signatures:
        yield f"  signed by {key.name}, fingerprint {key.fingerprint}"
    if not signed.signatures:
        yield "  not signed"


def _enclave(enclave: StatedEnclave) -> Iterator[str]:
    if enclave.mr_enclave is not None:
        yield f"  enclave MRENCLAVE {enclave.mr_enclave.hex()}"
    if enclave.signer is not None:
        signer = enclave.signer
        yield f"  enclave MRSIGNER {signer.mr_signer.hex()}"
        yield f"    product {signer.isv_prod_id}, security version {signer.min_isv_svn} or higher"
    if enclave.configurations is None:
        yield "    configuration: as each client's policy says"
    for digest in sorted(enclave.configurations or ()):
        yield f"    configuration {digest}"
    if enclave.models is None:
        yield "    models: as each client's policy says"
    for name, digests in enclave.models or ():
        for digest in sorted(digests):
            yield f"    model {name} = {digest}"
    if enclave.key_separation is not None:
        kss = enclave.key_separation
        yield f"    CONFIGID {kss.config_id.hex()}, CONFIGSVN {kss.config_svn} or higher"
        yield f"    ISVEXTPRODID {kss.isv_ext_prod_id.hex()}, ISVFAMILYID {kss.isv_family_id.hex()}"
