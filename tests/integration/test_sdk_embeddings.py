# SPDX-License-Identifier: Apache-2.0
"""Embeddings through the unmodified SDK, sealed, from a running appliance."""

import math

import openai
import pytest

from appliance import Appliance
from tiny_appliance import TINY, TINY_N_CTX

TEXTS = ["the house", "the horse", "a quite different text, and much longer than the others " * 3]


def test_the_sdk_gets_vectors(tiny_appliance: Appliance) -> None:
    """The SDK asks for base64 by itself; floats are the same numbers, alone and together; each has its receipt."""
    with tiny_appliance.client() as client:
        sdk = client.openai()
        answer = sdk.embeddings.create(model=TINY, input=TEXTS)
        vectors = [item.embedding for item in answer.data]
        assert [item.index for item in answer.data] == [0, 1, 2]
        assert {len(vector) for vector in vectors} == {64}
        assert all(math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-6) for vector in vectors)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > len(TEXTS)
        for text, vector in zip(TEXTS, vectors, strict=True):
            alone = sdk.embeddings.create(model=TINY, input=text, encoding_format="float")
            assert alone.data[0].embedding == vector
        assert len(client.receipts) == 1 + len(TEXTS)
        receipt = client.last_receipt
        assert receipt is not None
        assert receipt.receipt.endpoint == "/v1/embeddings"


async def test_the_async_sdk_gets_vectors(tiny_appliance: Appliance) -> None:
    """The same on an event loop."""
    async with tiny_appliance.async_client() as client:
        answer = await client.async_openai().embeddings.create(model="default", input=[[70, 71], [72]])
        assert len(answer.data) == 2


def test_the_shipped_model_embeds(appliance: Appliance) -> None:
    """A newcomer's first call works."""
    with appliance.client() as client:
        answer = client.openai().embeddings.create(model="default", input="Leo has 12 pens.")
        assert len(answer.data[0].embedding) > 64


def test_refusals_are_the_sdks_own_errors(tiny_appliance: Appliance) -> None:
    """A cut that means nothing, a text that cannot fit."""
    with tiny_appliance.client() as client:
        sdk = client.openai()
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.embeddings.create(model=TINY, input="a", dimensions=8)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "dimensions")
        for text in ("a b " * TINY_N_CTX, "x" * 100_000):
            with pytest.raises(openai.BadRequestError) as caught:
                sdk.embeddings.create(model=TINY, input=["a", text])
            assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
