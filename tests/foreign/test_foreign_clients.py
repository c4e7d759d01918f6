# SPDX-License-Identifier: Apache-2.0
"""OHTTP clients that share no code with the project get an answer from the appliance."""

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

import marionette
from adyton_protocol.hpke import Kem
from adyton_protocol.key_config import parse_key_configs
from adyton_protocol.media import GATEWAY_PATH
from appliance import Appliance

NPM = Path(__file__).parent / "npm"
QUESTION = "Sam has 3 apples. Eve has 4 apples. How many apples do Sam and Eve have together?"


def chat_body() -> str:
    """A small, unstreamed chat completion."""
    return json.dumps({"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 40, "seed": 1})


@pytest.mark.skipif(
    not (NPM / "node_modules" / "hpke").is_dir() or not shutil.which("node"),
    reason="needs Node.js and `npm ci` in tests/foreign/npm",
)
@pytest.mark.parametrize("stream", [False, True])
def test_npm_hpke_and_bhttp_get_a_chunked_answer(appliance: Appliance, stream: bool) -> None:
    """A client on npm's `hpke` and `bhttp-js` opens our chunked response, unary and streamed."""
    body = json.loads(chat_body()) | {"stream": stream}
    done = subprocess.run(
        ["node", "chunked_client.mjs", appliance.url, "https://adyton.invalid/v1/chat/completions",
         json.dumps(body)],
        cwd=NPM, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["status"] == 200, answer
    if stream:
        assert answer["contentType"].startswith("text/event-stream")
        assert answer["body"].rstrip().endswith("data: [DONE]")
        assert answer["chunks"] > 3
    else:
        assert json.loads(answer["body"])["object"] == "chat.completion"


@pytest.mark.skipif(marionette.executable() is None, reason="needs Firefox ESR (Debian: firefox-esr)")
@pytest.mark.slow
def test_firefox_gets_an_unchunked_answer(appliance: Appliance, tmp_path: Path) -> None:
    """Firefox's own OHTTP client (NSS, Mozilla's `ohttp`) gets a sealed answer to an unchunked request."""
    with urllib.request.urlopen(appliance.url + GATEWAY_PATH, timeout=10) as response:  # noqa: S310 - loopback
        offered = parse_key_configs(response.read())
    config = next(offer for offer in offered if offer.kem is Kem.X25519)
    with marionette.firefox(tmp_path) as session:
        answer = session.send_obliviously(
            relay=appliance.url + GATEWAY_PATH,
            target="https://adyton.invalid/v1/chat/completions",
            config=config.encode(),
            body=chat_body(),
        )
    assert answer.get("status") == 200, answer
    assert json.loads(answer["body"])["object"] == "chat.completion"
