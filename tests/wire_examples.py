# SPDX-License-Identifier: Apache-2.0
"""One deterministic exchange, as it looks on the wire: the source of the examples in ``docs/protocol.md`` and of
the vectors in ``tests/vectors/aci_exchange.json``.

``python tests/wire_examples.py`` rewrites both; a test keeps them equal to what the code says today. The seeds
are those of the vectors that the ``aci/1`` specification publishes (32 times 0x02 for the receipt key, 0x03 for
the X25519 key), so that other implementations have them already.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nacl.signing import SigningKey

from adyton_protocol.digests import sha256_hex
from adyton_protocol.key_config import KeyConfig
from adyton_protocol.keyset import Keyset, KeysetExtension, ModelIdentity, PublicKeyEntry
from adyton_protocol.receipt import Receipt, ReceiptBuilder, openings
from adyton_protocol.report import AttestationReport, SourceProvenance
from adyton_protocol.sse import receipt_comment
from adyton_protocol.statement import Statement
from adyton_protocol.suite import Kem

ROOT: Final = Path(__file__).resolve().parents[1]
DOCUMENT: Final = ROOT / "docs" / "protocol.md"
VECTORS: Final = ROOT / "tests" / "vectors" / "aci_exchange.json"

RECEIPT_KEY: Final = SigningKey(b"\x02" * 32)
X25519_PUBLIC: Final = X25519PrivateKey.from_private_bytes(b"\x03" * 32).public_key().public_bytes_raw()
NONCE: Final = bytes(range(32)).hex()
SECRET: Final = bytes(range(0x40, 0x60))
ENC: Final = X25519PrivateKey.from_private_bytes(b"\x05" * 32).public_key().public_bytes_raw()
REQUEST_BODY: Final = b'{"messages":[{"content":"hi","role":"user"}],"model":"demo-model"}'
RESPONSE_BODY: Final = b'{"choices":[],"id":"chatcmpl-123"}'
QUOTE: Final = b"a quote, about five thousand bytes long"
SERVED_AT: Final = 1_750_000_000
MODEL: Final = ModelIdentity(name="demo-model", identity=sha256_hex(b"example model"))


class Signer:
    """The receipt key of the example."""

    key_id = "receipt-1"

    def sign(self, message: bytes, /) -> bytes:
        return RECEIPT_KEY.sign(message).signature


def keyset(**changes: Any) -> Keyset:
    """The example's keyset."""
    members: dict[str, Any] = {
        "subject": None,
        "not_after": 1_800_000_000,
        "receipt_signing_keys": (PublicKeyEntry.ed25519("receipt-1", RECEIPT_KEY.verify_key.encode()),),
        "e2ee_public_keys": (
            PublicKeyEntry.ohttp("ohttp-1", [KeyConfig(key_id=7, kem=Kem.X25519, public_key=X25519_PUBLIC)]),
        ),
        "extension": KeysetExtension(
            epoch=4,
            previous_keyset_digest=sha256_hex(b"the keyset of epoch 3"),
            configuration_digest=sha256_hex(b"example configuration"),
            models=(MODEL,),
        ),
    }
    return Keyset(**(members | changes))


def report() -> AttestationReport:
    """The example's attestation report."""
    return AttestationReport(
        tee_type="simulated",
        quote=QUOTE,
        keyset=keyset(),
        nonce=NONCE,
        provenance=SourceProvenance(repo_commit="0123456789abcdef0123456789abcdef01234567"),
    )


def builder(**changes: Any) -> ReceiptBuilder:
    """A receipt of the example with its first event."""
    members: dict[str, Any] = {
        "receipt_id": "rcpt-0001",
        "keyset_digest": keyset().digest(),
        "receipt_secret": SECRET,
        "enc": ENC,
        "request_body": REQUEST_BODY,
        "endpoint": "/v1/chat/completions",
        "model": "demo-model",
    }
    return ReceiptBuilder(**(members | changes))


def receipt() -> Receipt:
    """The example's receipt."""
    building = builder()
    building.model_identity(name=MODEL.name, identity=MODEL.identity)
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    building.generation_finished(finish_reasons=["stop"], usage=usage)
    building.response_data(RESPONSE_BODY)
    return building.sign(Signer(), served_at=SERVED_AT, streamed=False, chat_id="chatcmpl-123")


def vectors() -> dict[str, Any]:
    """Everything that another implementation has to reproduce."""
    statements = [Statement(keyset_digest=keyset().digest(), nonce=nonce) for nonce in (NONCE, None)]
    return {
        "source": "adyton: tests/wire_examples.py; key seeds as in the test vectors of the aci/1 specification",
        "keyset": keyset().to_json(),
        "keyset_jcs": keyset().to_bytes().decode(),
        "keyset_digest": keyset().digest(),
        "statements": [
            {
                "nonce": statement.nonce,
                "bytes": statement.to_bytes().decode(),
                "report_data": statement.report_data().hex(),
            }
            for statement in statements
        ],
        "report": report().to_json(),
        "receipt_secret": SECRET.hex(),
        "enc": ENC.hex(),
        "request_body": REQUEST_BODY.decode(),
        "response_body": RESPONSE_BODY.decode(),
        "openings": openings(SECRET, ["request.body", "response.body"]),
        "receipt": receipt().to_json(),
        "receipt_signing_bytes": receipt().signing_bytes().decode(),
        "receipt_header": receipt().header_value(),
    }


def blocks() -> dict[str, str]:
    """The fenced blocks of the document, by name."""
    return {
        "keyset": _pretty(keyset().to_json()),
        "keyset-digest": keyset().digest(),
        "statement": report().statement().to_bytes().decode(),
        "report-data": _wrapped(report().report_data().hex()),
        "report": _pretty(report().to_json() | {"attestation": _shortened()}),
        "receipt": _pretty(receipt().to_json()),
        "receipt-comment": receipt_comment(receipt().to_bytes()).decode()[:72] + "...",
        "openings": _pretty(openings(SECRET, ["request.body", "response.body"])),
    }


def render(text: str) -> str:
    """Return the document with every marked block replaced by what the code says."""
    for name, block in blocks().items():
        pattern = re.compile(rf"(<!-- example: {name} -->\n```[a-z]*\n).*?(\n```\n)", re.DOTALL)
        text, count = pattern.subn(lambda match, block=block: match[1] + block + match[2], text)
        if count != 1:
            raise SystemExit(f"docs/protocol.md does not hold exactly one block {name}")
    return text


def vector_text() -> str:
    """Return the vector file."""
    return json.dumps(vectors(), indent=1) + "\n"


def _shortened() -> dict[str, Any]:
    attestation: Any = report().to_json()["attestation"]
    return attestation | {"workload_keyset": {"...": "the keyset"}}


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2)


def _wrapped(text: str) -> str:
    return "\n".join(text[start : start + 64] for start in range(0, len(text), 64))


if __name__ == "__main__":
    VECTORS.write_text(vector_text())
    DOCUMENT.write_text(render(DOCUMENT.read_text()))
