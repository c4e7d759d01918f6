# SPDX-License-Identifier: Apache-2.0
"""The tag by which the host tells tenants apart: the same for the same tenant, and nothing can be read off it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.outer import tenant
from adyton_host.tenants import TenantTags
from adyton_protocol import media


def _scope(credential: bytes | None = None, address: str | None = "192.0.2.1") -> dict[str, Any]:
    headers = [(b"user-agent", b"x")] + ([] if credential is None else [(b"authorization", credential)])
    return {"type": "http", "headers": headers, "client": None if address is None else (address, 1234)}


@given(first=st.binary(max_size=200), second=st.binary(max_size=200), key=st.binary(min_size=32, max_size=32))
def test_tags_differ_exactly_where_credentials_do(first: bytes, second: bytes, key: bytes) -> None:
    """Wherever a request comes from, its credential decides; the tag is well-formed and holds none of it."""
    tags = TenantTags(key)
    one, other = tags.tag(_scope(first)), tags.tag(_scope(second, "198.51.100.7"))
    assert (one == other) == (first == second)
    assert tenant({"headers": [(media.TENANT_HEADER.encode(), one.encode())]}) == one
    assert len(first) < 4 or first not in one.encode()
    assert TenantTags(bytes(32)).tag(_scope(first)) != one or key == bytes(32)


def test_without_a_credential_the_network_decides() -> None:
    """An IPv4 address, an IPv6 network of 64 bits; a credential that spells an address is another tenant."""
    tags = TenantTags(bytes(32))
    tag = tags.tag(_scope())
    assert tags.tag(_scope(address="192.0.2.2")) != tag
    assert tags.tag(_scope(b"192.0.2.1")) != tag
    assert tags.tag(_scope(address="2001:db8::1")) == tags.tag(_scope(address="2001:db8::ffff:1"))
    assert tags.tag(_scope(address="2001:db8::1")) != tags.tag(_scope(address="2001:db8:0:1::1"))
    assert len({tags.tag(_scope(address=None)), tags.tag(_scope(address="testclient")), tag}) == 3
