# SPDX-License-Identifier: Apache-2.0
"""The example of ``protocol/README.md``."""

import re
from pathlib import Path
from typing import Any

from adyton_protocol.bhttp import (
    Content,
    End,
    Request,
    ResponseHead,
    ResponseParser,
    ResponseWriter,
    encode_request,
    parse_request,
)
from adyton_protocol.hpke import Kem, KemPrivateKey
from adyton_protocol.key_config import KeyConfig
from adyton_protocol.ohttp import RequestOpener, RequestSealer
from adyton_protocol.padding import bucket

README = Path(__file__).parents[3] / "protocol" / "README.md"


def test_the_example_runs() -> None:
    """The exchange in the README works as printed, and means what it says."""
    key = KemPrivateKey.generate(Kem.X_WING)
    request = Request(method="GET", scheme="https", authority="a", path="/")
    names: dict[str, Any] = {
        "RequestOpener": RequestOpener,
        "RequestSealer": RequestSealer,
        "ResponseParser": ResponseParser,
        "ResponseWriter": ResponseWriter,
        "encode_request": encode_request,
        "bucket": bucket,
        "config": KeyConfig.of(1, key),
        "keys": {1: key},
        "entropy": bytes,
        "request": request,
    }
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(example, names)  # noqa: S102 - our own text
    assert parse_request(names["plaintext"]) == request
    assert names["events"] == [ResponseHead(status=200, headers=()), Content(b"data: ...\n\n"), End()]
    assert names["response"].complete
