# SPDX-License-Identifier: Apache-2.0
"""The attestation statement and the report data over it."""

from typing import Any

import pytest
from aci_vectors import UPSTREAM
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.digests import Digest, sha256_hex
from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.statement import Statement, as_nonce, report_data

DIGESTS = st.binary(max_size=8).map(sha256_hex)
NONCES = st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex)


@pytest.mark.parametrize("vector", UPSTREAM["statements"])
def test_statement_bytes_and_report_data_are_those_of_the_specification(vector: dict[str, Any]) -> None:
    """Both forms, challenged and unchallenged, agree byte for byte with the published vectors."""
    statement = Statement(keyset_digest=UPSTREAM["keyset"]["digest"], nonce=vector["nonce"])
    assert statement.to_bytes() == vector["bytes"].encode()
    assert statement.report_data().hex() == vector["report_data"]
    assert report_data(UPSTREAM["keyset"]["digest"], vector["nonce"]) == statement.report_data()


@given(DIGESTS, NONCES)
def test_the_statement_is_the_template_and_the_slot_is_padded_with_zeros(
    digest: Digest, nonce: str | None
) -> None:
    """No input needs escaping, so the template is the canonical form; the upper half says nothing."""
    quoted = "null" if nonce is None else f'"{nonce}"'
    statement = Statement(keyset_digest=digest, nonce=nonce)
    expected = f'{{"keyset_digest":"{digest}","nonce":{quoted},"purpose":"aci.report_data.v1"}}'
    assert statement.to_bytes() == expected.encode()
    assert len(statement.report_data()) == 64
    assert statement.report_data()[32:] == bytes(32)


@given(DIGESTS, NONCES, DIGESTS, NONCES)
def test_other_inputs_give_other_report_data(
    one: Digest, first: str | None, two: Digest, second: str | None
) -> None:
    """Neither keyset nor challenge can be exchanged under a quote."""
    assert (report_data(one, first) == report_data(two, second)) == ((one, first) == (two, second))


@pytest.mark.parametrize(
    "nonce",
    ["", "00" * 31, "00" * 33, "AB" * 32, "0x" + "00" * 31, "00" * 32 + "\n", "g" * 64, "\uff10" * 64],
)
def test_a_nonce_is_sixty_four_lower_case_digits(nonce: str) -> None:
    """Anything else would let a caller shape the statement, and is refused wherever it enters."""
    with pytest.raises(LocalProtocolError):
        as_nonce(nonce)
    with pytest.raises(LocalProtocolError):
        report_data(sha256_hex(b""), nonce)


@pytest.mark.parametrize("digest", ["", "00" * 32, 'sha256:"', sha256_hex(b"").upper()])
def test_a_keyset_digest_is_a_digest(digest: str) -> None:
    """The other input is checked as well, because types are no check at run time."""
    with pytest.raises(LocalProtocolError):
        report_data(Digest(digest), None)
