# SPDX-License-Identifier: Apache-2.0
"""The host's tag of a tenant reaches the queue and decides nothing but turns."""

import dataclasses
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.enclave.harness import CHAT, Enclave, Inner, Sealed, call

from adyton_enclave.engine import GenerationRequest
from adyton_enclave.outer import tenant
from adyton_protocol import media

_ALPHABET = frozenset(string.ascii_letters + string.digits + "-_")
REQUEST = CHAT | {"seed": 7}


async def _ask(enclave: Enclave, sealed: Sealed, **headers: str) -> Inner:
    fields = {"content-type": sealed.media_type, **headers}
    return sealed.open(
        await call(enclave.gateway, "POST", media.GATEWAY_PATH, body=[sealed.bytes], headers=fields)
    )


async def _outcome(body: dict[str, Any], tag: str | None) -> tuple[GenerationRequest, Any, Any]:
    """What the engine was asked, what the caller read, and what the receipt says, without the random parts."""
    enclave = Enclave()
    sealed = enclave.seal(body)
    inner = await _ask(enclave, sealed, **({} if tag is None else {media.TENANT_HEADER: tag}))
    receipt = sealed.check_receipt(inner, enclave.keyset).receipt
    answer = inner.data() if body.get("stream") else inner.json()
    for part in answer if isinstance(answer, list) else [answer]:
        if isinstance(part, dict):
            part.pop("id")
    return enclave.engine.generations[0].request, answer, [event.type for event in receipt.events]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_tag_changes_the_tenant_of_the_queue_and_nothing_else(stream: bool) -> None:
    """With one tag, another, or none: the same request to the engine, the same answer, the same receipt events."""
    body = REQUEST | {"stream": stream}
    bare, tagged, other = [await _outcome(body, tag) for tag in (None, "tenant-1", "other_2")]
    assert [bare[0].tenant, tagged[0].tenant, other[0].tenant] == ["", "tenant-1", "other_2"]
    for outcome in (tagged, other):
        assert dataclasses.replace(outcome[0], tenant="") == bare[0]
        assert outcome[1:] == bare[1:]


async def test_a_callers_inner_header_is_no_tag() -> None:
    """Only the host's outer header counts; the caller cannot choose its place by a header of its own."""
    enclave = Enclave()
    await enclave.ask(REQUEST, headers={media.TENANT_HEADER: "mine"})
    assert enclave.engine.generations[0].request.tenant == ""


@settings(max_examples=300)
@given(value=st.one_of(st.binary(max_size=100), st.text(sorted(_ALPHABET), max_size=100).map(str.encode)))
def test_a_malformed_tag_is_no_tag(value: bytes) -> None:
    """Whatever the host sends, the tag is a short word of harmless characters or empty."""
    tag = tenant({"headers": [(media.TENANT_HEADER.encode(), value)]})
    harmless = 0 < len(value) <= media.MAX_TENANT_CHARS and _ALPHABET.issuperset(value.decode("latin-1"))
    assert tag == (value.decode() if harmless else "")
