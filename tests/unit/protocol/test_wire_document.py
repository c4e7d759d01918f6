# SPDX-License-Identifier: Apache-2.0
"""The wire specification says what the code does."""

import re

import pytest
import wire_examples

from adyton_enclave.privacy import CHUNK_BYTES, FRAME_BYTES, MINIMUM_CHUNK_BYTES, TICK_S
from adyton_protocol import media
from adyton_protocol.keyset import (
    EXTENSION_VERSION,
    MAX_KEYS,
    MAX_MODELS,
    MAX_NOT_AFTER_S,
    MAX_OHTTP_KEYS_BYTES,
)
from adyton_protocol.padding import MIN_BUCKET_BYTES, STEP_BYTES
from adyton_protocol.receipt import (
    ANSWER_SCORED,
    GENERATION_FINISHED,
    MAX_RECEIPT_BYTES,
    MODEL_IDENTITY,
    RECEIPT_HEADER,
    RECEIPT_ID_HEADER,
    REQUEST_RECEIVED,
    RESPONSE_RETURNED,
    SCALING_RUN,
    VALIDATION_CHECKED,
)
from adyton_protocol.receipt_document import MAX_EVENTS
from adyton_protocol.report import MAX_QUOTE_BYTES
from adyton_protocol.scaling_replay import LABELS
from adyton_protocol.strict_json import MAX_DEPTH
from adyton_protocol.suite import DEFAULT_SUITES, RECEIPT_EXPORT_LABEL, Kem

TEXT = wire_examples.DOCUMENT.read_text()


def test_every_example_is_what_the_code_produces() -> None:
    """Running ``python tests/wire_examples.py`` changes neither the document nor the vectors."""
    assert wire_examples.render(TEXT) == TEXT
    assert wire_examples.vector_text() == wire_examples.VECTORS.read_text()


@pytest.mark.parametrize(
    "name", sorted(name for name in vars(media) if name.startswith(("PROBLEM_OHTTP", "PROBLEM_")))
)
def test_every_problem_type_is_listed(name: str) -> None:
    """A client author finds each refusal in the table of errors."""
    value = str(getattr(media, name))
    assert f"`{value}`" in TEXT


@pytest.mark.parametrize(
    "phrase",
    [
        f"`POST {media.GATEWAY_PATH}`", f"`GET {media.ATTESTATION_PATH}?nonce=<nonce>`", f"`{media.OHTTP_KEYS}`",
        f"`{media.OHTTP_CHUNKED_REQUEST}`, `{media.OHTTP_REQUEST}`",
        f"`{media.OHTTP_CHUNKED_RESPONSE}`, `{media.OHTTP_RESPONSE}`",
        f"at most {media.MAX_REPORT_BYTES // 1024} KiB", f"up to {MAX_QUOTE_BYTES // 1024} KiB |",
        f"X-Wing (`0x{Kem.X_WING:04x}`)", f"X25519 (`0x{Kem.X25519:04x}`)",
        f'Context.Export("{RECEIPT_EXPORT_LABEL.decode()}", 32)',
        f"powers of two from {MIN_BUCKET_BYTES} bytes to {STEP_BYTES // 1024} KiB",
        f"multiples of {CHUNK_BYTES} bytes, at least {MINIMUM_CHUNK_BYTES}",
        f"{FRAME_BYTES} bytes every {int(TICK_S * 1000)} ms", f"nesting up to {MAX_DEPTH};",
        f"at most {MAX_NOT_AFTER_S} |",
        f"up to {MAX_KEYS} keys", f"up to {MAX_MODELS} objects", f"up to {MAX_OHTTP_KEYS_BYTES // 1024} KiB;",
        f"| `version` | integer | {EXTENSION_VERSION} |", f"At most {MAX_RECEIPT_BYTES // 1024} KiB,",
        f"1 to {MAX_EVENTS} events", f"`{RECEIPT_HEADER}`", f"`{RECEIPT_ID_HEADER}`", f"| `{REQUEST_RECEIVED}` |",
        f"| `{MODEL_IDENTITY}` |", f"| `{GENERATION_FINISHED}` |", f"| `{RESPONSE_RETURNED}` |",
        f"| `{ANSWER_SCORED}` |", f"| `{SCALING_RUN}` |", f"| `{VALIDATION_CHECKED}` |",
        *(f"`{label}`" for label in LABELS.values()),
    ],
)  # fmt: skip
def test_every_constant_is_stated(phrase: str) -> None:
    """Paths, media types, limits, labels and event types stand in the document as the code has them."""
    assert phrase in TEXT


def test_the_preference_of_ciphers_is_stated_in_order() -> None:
    """The table of the sealing profile lists the suites as the gateway offers them."""
    row = next(line for line in TEXT.splitlines() if line.startswith("| AEAD"))
    assert [int(number, 16) for number in re.findall(r"`0x([0-9a-f]{4})`", row)] == [
        aead for _kdf, aead in DEFAULT_SUITES
    ]


def test_every_member_of_every_document_is_described() -> None:
    """No member of our documents is missing from the tables."""
    report = wire_examples.report().to_json()
    keyset = wire_examples.keyset().to_json()
    receipt = wire_examples.receipt().to_json()
    extension = keyset["adyton"]
    assert isinstance(extension, dict)
    for name in {*report, *keyset, *extension, *receipt} - {"attestation"}:
        assert f"`{name}`" in TEXT, name
