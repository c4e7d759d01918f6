# SPDX-License-Identifier: Apache-2.0
"""Real endorsements, from the source distribution of dcap-qvl: what the sources make of them."""

import json
from urllib.parse import quote

import httpx
import pytest

import real_samples
from adyton_attestation.certificates import trust_anchor
from adyton_attestation.roots import INTEL_SGX_ROOT_DER
from adyton_attestation.simulation.pki import create_pki
from adyton_attestation.sources.decoding import issuer_chain, revocation_list, signed_document
from adyton_attestation.sources.family import PlatformFamily
from adyton_attestation.sources.vetting import vet
from adyton_protocol.errors import EndorsementError

pytestmark = [
    pytest.mark.network,
    pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning"),
    pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning"),
]


@pytest.fixture(scope="module")
def found() -> dict[str, bytes]:
    """The samples by file name."""
    try:
        return real_samples.samples()
    except real_samples.NotAvailable as reason:
        pytest.skip(str(reason))


def test_real_sets_stand_below_intels_root_and_no_other(found):
    """Each says what it is about, and a quote of that platform needs just that."""
    sets = {name: data for name, data in found.items() if name.endswith("_collateral.json")}
    assert len(sets) == 4
    for name, data in sets.items():
        vetted = vet(data, trust_anchor(INTEL_SGX_ROOT_DER))
        assert vetted.family.tee == name[:3]
        assert PlatformFamily.of_quote(found[name.removesuffix("_collateral.json")]) == vetted.family
        with pytest.raises(EndorsementError):
            vet(data, trust_anchor(create_pki(1_790_000_000).root.der()))


def test_real_parts_come_through_the_wire_format_as_they_are(found):
    """Envelope, header and list, as Intel's service sends them, give back the very parts of the set."""
    for name, data in found.items():
        if not name.endswith("_collateral.json"):
            continue
        parts = json.loads(data)
        for part, member in (("tcb_info", "tcbInfo"), ("qe_identity", "enclaveIdentity")):
            signature = parts[f"{part}_signature"]
            body = f'{{"{member}":{parts[part]},"signature":"{signature}"}}'.encode()
            assert signed_document(body, member) == (parts[part], signature)
            chain = parts[f"{part}_issuer_chain"]
            assert issuer_chain(httpx.Headers({"X": quote(chain)}), "X") == chain
        for part in ("root_ca_crl", "pck_crl"):
            der = bytes.fromhex(parts[part])
            assert revocation_list(der, part) == revocation_list(parts[part].encode(), part) == der
