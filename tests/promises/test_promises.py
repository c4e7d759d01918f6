# SPDX-License-Identifier: Apache-2.0
"""The promises of the threat model, each held against the real appliance from the outside.

Unit tests hold the same promises piece by piece; here an adversary with the host's powers attacks the whole:
host and enclave processes, shipped model, real sealing. ``mutations.toml`` names the lines they guard.
"""

import json
import re
import secrets
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

import memory
from adyton import Client, Simulation
from adyton_attestation.result import AttestationResult
from adyton_protocol.errors import (
    AppraisalError,
    AttestationError,
    OpenError,
    TruncatedMessage,
)
from adyton_protocol.media import ATTESTATION_PATH, GATEWAY_PATH, OHTTP_CHUNKED_REQUEST
from appliance import Appliance, running
from wiretap import chunks, tamper, wiretap

ROOT = Path(__file__).resolve().parents[2]
PROBLEM = json.loads((ROOT / "docs" / "examples" / "demo_problem.json").read_text())
RESPONSE_NONCE_BYTES = 32
"""The preferred suite's; asserted where it matters by the chunks opening at all."""


def ask(client: Client, question: str, *, max_tokens: int = 120) -> str:
    """Ask through the unmodified OpenAI SDK, streamed, and return the whole answer."""
    stream = client.openai().chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": question}],
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def cause_chain(error: BaseException) -> list[BaseException]:
    """The error and everything it was raised from."""
    chain = [error]
    while (error := error.__cause__ or error.__context__) is not None and error not in chain:  # type: ignore[assignment]
        chain.append(error)
    return chain


# --- 1. Plaintext stays inside -----------------------------------------------------------------------


def test_promise_1_the_host_never_holds_plaintext(own_appliance: Appliance) -> None:
    """Neither prompt nor answer is in the host's memory, in any file it wrote, or on any wire."""
    marker = secrets.token_hex(12)
    question = f"Remember {marker}. {PROBLEM['question']}"
    with wiretap(own_appliance.url) as tap, Client(tap.url, simulation=own_appliance.simulation()) as client:
        answer = ask(client, question)
        needles = [marker.encode(), PROBLEM["question"][:40].encode(), answer[-24:].encode()]
        assert len(needles[2]) == 24
        host_memory = memory.occurrences(own_appliance.host.pid, needles)
        # The control: the same search finds what the host must know, and finds the marker where it must be.
        assert memory.occurrences(own_appliance.host.pid, [b"/.well-known/ohttp-gateway"]).popitem()[1] > 0
        assert memory.occurrences(own_appliance.enclave.pid, needles)[needles[0]] > 0
    assert set(host_memory.values()) == {0}
    assert not any(needle in tap.everything for needle in needles)
    assert len(tap.upstream) > len(question)
    for path in own_appliance.directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(needle in content for needle in needles), path


def test_promise_1_a_plaintext_request_is_refused_unread(appliance: Appliance) -> None:
    """A request in the clear is refused with an explanation, and its content is not repeated."""
    marker = secrets.token_hex(12)
    answer = httpx.post(
        f"{appliance.url}/v1/chat/completions", json={"messages": [{"role": "user", "content": marker}]}
    )
    assert 400 <= answer.status_code < 500
    assert "sealed" in answer.text
    assert marker not in answer.text


# --- 2. Proof before bytes ---------------------------------------------------------------------------


def test_promise_2_nothing_is_sent_before_appraisal_passed(appliance: Appliance, tmp_path: Path) -> None:
    """When one reference value differs, not a byte of the request leaves, and the error names the check."""
    for name in ("root.pem", "policy.toml"):
        (tmp_path / name).write_bytes((appliance.simulation_dir / name).read_bytes())
    policy = (tmp_path / "policy.toml").read_text()
    document = tomllib.loads(policy)
    measured = str(document["identity"]["mr_enclave"][0])
    (tmp_path / "policy.toml").write_text(policy.replace(measured, measured[::-1]))
    with wiretap(appliance.url) as tap, Client(tap.url, simulation=Simulation.from_dir(tmp_path)) as client:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the SDK may wrap it; the chain is checked
            ask(client, "never to be sent")
        refusal = next(error for error in cause_chain(caught.value) if isinstance(error, AppraisalError))
    assert refusal.check
    assert b"POST" not in tap.upstream
    assert GATEWAY_PATH.encode() not in tap.upstream


# --- 3. Complete or an error -------------------------------------------------------------------------


def whole(pieces: list[bytes]) -> list[bytes]:
    """The untouched stream, as control."""
    return pieces


def cut_the_end(pieces: list[bytes]) -> list[bytes]:
    """Drop the authenticated end."""
    return pieces[:-1]


def cut_the_middle(pieces: list[bytes]) -> list[bytes]:
    """Keep the end, but drop a chunk before it."""
    return [*pieces[:2], *pieces[3:]]


def reorder(pieces: list[bytes]) -> list[bytes]:
    """Swap two chunks."""
    return [pieces[0], pieces[2], pieces[1], *pieces[3:]]


def duplicate(pieces: list[bytes]) -> list[bytes]:
    """Deliver one chunk twice."""
    return [*pieces[:2], pieces[1], *pieces[2:]]


def flip(pieces: list[bytes]) -> list[bytes]:
    """Flip one bit of one chunk."""
    changed = bytearray(pieces[2])
    changed[-1] ^= 1
    return [*pieces[:2], bytes(changed), *pieces[3:]]


@pytest.mark.parametrize("attack", [cut_the_end, cut_the_middle, reorder, duplicate, flip])
def test_promise_3_a_damaged_stream_raises(
    appliance: Appliance, attack: Callable[[list[bytes]], list[bytes]]
) -> None:
    """A stream that was cut, reordered, duplicated or changed ends in a typed error, never in a short answer."""

    def rewrite(body: bytes) -> bytes:
        nonce, pieces = chunks(body, RESPONSE_NONCE_BYTES)
        assert len(pieces) > 4
        return nonce + b"".join(attack(pieces))

    with tamper(appliance.url, rewrite) as url, Client(url, simulation=appliance.simulation()) as client:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the SDK may wrap it; the chain is checked
            ask(client, PROBLEM["question"])
        assert any(isinstance(error, TruncatedMessage | OpenError) for error in cause_chain(caught.value))
        assert client.last_receipt is None


def test_promise_3_the_control_of_the_damaged_streams(appliance: Appliance) -> None:
    """The same wire, rewriting nothing, delivers the whole answer: the attacks fail for the right reason."""

    def rewrite(body: bytes) -> bytes:
        nonce, pieces = chunks(body, RESPONSE_NONCE_BYTES)
        return nonce + b"".join(whole(pieces))

    with tamper(appliance.url, rewrite) as url, Client(url, simulation=appliance.simulation()) as client:
        assert "answer" in ask(client, PROBLEM["question"])


def test_promise_3_streams_cannot_be_spliced(appliance: Appliance) -> None:
    """An answer assembled from two genuine answers of the same enclave is refused."""
    seen: list[bytes] = []

    def rewrite(body: bytes) -> bytes:
        seen.append(body)
        if len(seen) == 1:
            return body
        nonce, pieces = chunks(body, RESPONSE_NONCE_BYTES)
        _, others = chunks(seen[0], RESPONSE_NONCE_BYTES)
        return nonce + b"".join([*pieces[:2], *others[2:]])

    with tamper(appliance.url, rewrite) as url, Client(url, simulation=appliance.simulation()) as client:
        assert ask(client, PROBLEM["question"])
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the SDK may wrap it; the chain is checked
            ask(client, PROBLEM["question"])
        assert any(isinstance(error, OpenError) for error in cause_chain(caught.value))


def gateway_body(recorded: bytes) -> bytes:
    """The body of the first sealed request in recorded client traffic."""
    start = recorded.index(b"POST " + GATEWAY_PATH.encode())
    head, _, rest = recorded[start:].partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"content-length" in headers:
        return rest[: int(headers[b"content-length"])]
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not (length := int(size, 16)):
            return body
        body, rest = body + rest[:length], rest[length + 2 :]


def replay(url: str, body: bytes) -> httpx.Response:
    """Send a recorded sealed request again, as the host could."""
    return httpx.post(url + GATEWAY_PATH, content=body, headers={"content-type": OHTTP_CHUNKED_REQUEST})


def test_promise_3_a_recorded_request_is_not_executed_again(appliance: Appliance) -> None:
    """A replayed request is refused, and the refusal says nothing else."""
    with wiretap(appliance.url) as tap, Client(tap.url, simulation=appliance.simulation()) as client:
        ask(client, PROBLEM["question"], max_tokens=4)
    answer = replay(appliance.url, gateway_body(bytes(tap.upstream)))
    assert answer.status_code == 409
    assert "replay" in answer.json()["type"]


# --- 4. What can change an answer is measured ----------------------------------------------------------


def test_promise_4_an_exchanged_model_is_not_loaded(tmp_path: Path) -> None:
    """A model file that differs in one byte of its weights from what is pinned never answers."""
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    shipped = ROOT / "models"
    text = (shipped / "catalog.toml").read_text()
    for path in (shipped / "shipped").glob("*.gguf"):
        changed = bytearray(path.read_bytes())
        changed[len(changed) // 2] ^= 1
        (catalog / "shipped").mkdir(exist_ok=True)
        (catalog / "shipped" / path.name).write_bytes(bytes(changed))
    (catalog / "catalog.toml").write_text(text)
    with pytest.raises(RuntimeError), running(tmp_path, "--catalog", str(catalog / "catalog.toml")):
        pytest.fail("an exchanged model was loaded")


def test_promise_4_sampling_defaults_are_part_of_the_model_identity(
    tmp_path: Path, appliance: Appliance
) -> None:
    """Changing a sampling default changes the attested model identity, so that a pinned client refuses."""
    text = (ROOT / "models" / "catalog.toml").read_text()
    changed = tmp_path / "catalog.toml"
    text = text.replace("temperature = 0.8", "temperature = 0.9")
    changed.write_text(re.sub('(file|adapter) = "', rf"\g<0>{(ROOT / 'models').as_posix()}/", text))
    assert "0.9" in changed.read_text()
    with appliance.client() as pinned:
        before = {model.identity for model in pinned.attest().verdict.keyset.extension.models}
    with running(tmp_path, "--catalog", str(changed)) as other, other.client() as client:
        after = {model.identity for model in client.attest().verdict.keyset.extension.models}
    assert before.isdisjoint(after)


def test_promise_4_no_check_is_skipped_even_in_simulation(appliance: Appliance) -> None:
    """Code, configuration and models are all compared with reference values; nothing is waved through."""
    with appliance.client() as client:
        verdicts = {check.name: check.verdict for check in client.verify().checks}
    assert set(verdicts.values()) == {"pass"}, verdicts


# --- 5. No request learns about another ----------------------------------------------------------------


def test_promise_5_an_answer_does_not_depend_on_what_others_asked(appliance: Appliance) -> None:
    """The same seeded request gives the same answer before, after and beside a request of the same prefix."""
    other = PROBLEM["question"] + " And twice that?"
    with appliance.client() as first, appliance.client() as second:
        before = ask(first, PROBLEM["question"])
        stream = second.openai().chat.completions.create(
            model="default", messages=[{"role": "user", "content": other}], temperature=0, stream=True
        )
        beside = ask(first, PROBLEM["question"])
        for _ in stream:
            pass
        after = ask(first, PROBLEM["question"])
    assert before == beside == after


# --- 6. Keys rotate, and are never shared --------------------------------------------------------------


def test_promise_6_a_recorded_request_does_not_open_in_another_life(own_appliance: Appliance) -> None:
    """After the enclave died, its successor cannot open what was sealed to it."""
    with wiretap(own_appliance.url) as tap, Client(tap.url, simulation=own_appliance.simulation()) as client:
        ask(client, PROBLEM["question"], max_tokens=4)
        first = client.attest().verdict.keyset
        own_appliance.kill_enclave()
        ask(client, PROBLEM["question"], max_tokens=4)
        second = client.attest().verdict.keyset
    assert first.digest() != second.digest()
    answer = replay(own_appliance.url, gateway_body(bytes(tap.upstream)))
    assert answer.status_code in {400, 422}
    assert b"choices" not in answer.content


# --- 7. Every answer has a receipt ---------------------------------------------------------------------


def test_promise_7_a_receipt_is_checked_offline_by_somebody_else(
    appliance: Appliance, tmp_path: Path
) -> None:
    """Saved receipt and report verify without the appliance; any edit of the receipt is refused."""
    receipt, report = tmp_path / "receipt.json", tmp_path / "report.json"
    appliance.adyton("ask", "What is 2 + 3?", "--save-receipt", str(receipt), "--save-report", str(report))
    verify = [str(Path(sys.executable).parent / "adyton"), "receipt", "verify"]
    sound = subprocess.run(
        [*verify, str(receipt), "--report", str(report)], capture_output=True, text=True, check=False
    )
    assert sound.returncode == 0, sound.stdout + sound.stderr
    assert "receipt: valid" in sound.stdout
    text = receipt.read_text()
    # One second off: everything else about it stays plausible, so only the signature can object.
    served_at = re.search(r'"served_at":\s*(\d+)', text)
    assert served_at is not None
    earlier = str(int(served_at[1]) - 1)
    receipt.write_text(text[: served_at.start(1)] + earlier + text[served_at.end(1) :])
    forged = subprocess.run(
        [*verify, str(receipt), "--report", str(report)], capture_output=True, text=True, check=False
    )
    assert forged.returncode == 1
    assert "receipt: valid" not in forged.stdout


# --- 8. Simulation cannot be mistaken for the real thing -----------------------------------------------


def test_promise_8_a_simulated_enclave_is_refused_unless_chosen(appliance: Appliance) -> None:
    """A client for real hardware refuses a simulated enclave, and sends it nothing."""
    policy = ROOT / "manifests" / "policies" / "production.toml"
    with (
        wiretap(appliance.url) as tap,
        Client(tap.url, policy=policy) as client,
        pytest.raises(AttestationError),
    ):
        client.verify()
    assert b"POST" not in tap.upstream


def test_promise_8_every_use_of_simulation_announces_itself(appliance: Appliance) -> None:
    """The verdict is of another type, and the command line prints an unmistakable banner."""
    with appliance.client() as client:
        verdict = client.verify()
    assert not isinstance(verdict, AttestationResult)
    assert verdict.tee_type == "simulated"
    shown = appliance.adyton("verify")
    assert "SIMULATED" in shown.stdout + shown.stderr


def test_promise_8_the_report_says_simulated(appliance: Appliance) -> None:
    """The evidence on the wire carries its own type."""
    url = f"{appliance.url}{ATTESTATION_PATH}?nonce={secrets.token_hex(32)}"
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - loopback
        report = json.load(response)
    assert report["attestation"]["tee_type"] == "simulated"
