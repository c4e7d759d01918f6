# SPDX-License-Identifier: Apache-2.0
"""The enclave as a process: one file in, nothing else; real model, real sockets, real signals."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tiny_gguf import make_tiny_gguf
from unit.enclave.harness import CHAT, Inner, Outer, Sealed

from adyton_attestation.simulation.installation import ensure_installation
from adyton_enclave.log import Happening, note
from adyton_protocol import media
from adyton_protocol.keyset import Keyset
from adyton_protocol.report import parse_report

CANARY = "canary-51b7-prompt"
STREAM: dict[str, object] = {
    "messages": [{"role": "user", "content": CANARY}],
    "stream": True,
    "max_tokens": 60,
}
MINUTE_S = 60.0


@dataclass
class Process:
    """A running enclave."""

    child: subprocess.Popen[bytes]
    url: str
    output: Path

    def keyset(self) -> Keyset:
        report = httpx.get(self.url + media.ATTESTATION_PATH, params={"nonce": "ab" * 32}).content
        return parse_report(report).keyset

    def post(self, sealed: Sealed) -> Outer:
        answer = httpx.post(
            self.url + media.GATEWAY_PATH,
            content=sealed.bytes,
            headers={"content-type": sealed.media_type},
            timeout=MINUTE_S,
        )
        return Outer(status=answer.status_code, headers=dict(answer.headers), parts=[answer.content])

    def ask(self, body: object, **options: object) -> Inner:
        sealed = Sealed(self.keyset().key_configs()[0], body, **options)  # type: ignore[arg-type]
        return sealed.open(self.post(sealed))

    def said(self) -> str:
        return self.output.read_text()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_configuration(directory: Path, port: int, extra: str = "") -> None:
    """enclave.toml for a tiny model on a simulated platform."""
    model = make_tiny_gguf(directory / "tiny.gguf", n_ctx=2048)
    ensure_installation(directory / "simulation", int(time.time()))  # noqa: TID251 - certificates have dates
    (directory / "enclave.toml").write_text(
        f"""
version = 1
listen_port = {port}
attester = "simulated"
simulation_platform = "{directory}/simulation/platform"
{extra}
[engine]
threads = 1
n_ctx_total = 4096
[[model]]
name = "tiny"
path = "tiny.gguf"
content = "{model.pin.content}"
weights = "{model.pin.weights}"
n_ctx = 2048
"""
    )


def start(directory: Path, port: int, environment: dict[str, str] | None = None) -> Process:
    """Start the enclave in ``directory`` and wait until it is ready."""
    output = directory / "output"
    with output.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "adyton_enclave"],
            cwd=directory,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    process = Process(child=child, url=f"http://127.0.0.1:{port}", output=output)
    deadline = time.monotonic() + MINUTE_S
    while time.monotonic() < deadline:
        assert child.poll() is None, process.said()
        try:
            if httpx.get(process.url + "/readyz").status_code == 200:
                return process
        except httpx.TransportError:
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.05)
    raise TimeoutError(process.said())


@pytest.fixture(scope="module")
def enclave(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One process for the tests that leave it alive; keys live for two seconds."""
    directory = tmp_path_factory.mktemp("enclave")
    port = free_port()
    write_configuration(directory, port, "epoch_seconds = 2\noverlap_seconds = 2")
    # The environment is the host's: none of this may have an effect.
    process = start(
        directory,
        port,
        {
            "WEB_CONCURRENCY": "7",
            "FORWARDED_ALLOW_IPS": "*",
            "ADYTON_ATTESTER": "gramine",
            "UVICORN_PORT": "1",
        },
    )
    yield process
    if process.child.poll() is None:
        process.child.kill()
        process.child.wait()


def test_a_real_model_answers_sealed(enclave: Process) -> None:
    """End to end in one process: attest, seal, generate, receipt."""
    keyset = enclave.keyset()
    for body, chunked, which in ((CHAT | {"model": "tiny"}, True, 0), (STREAM, True, 1), (STREAM, False, 0)):
        sealed = Sealed(keyset.key_configs()[which], body, chunked=chunked)
        inner = sealed.open(enclave.post(sealed))
        assert inner.status == 200
        verified = sealed.check_receipt(inner, keyset)
        (identity,) = verified.receipt.events_of("model.identity")
        assert identity.fields["identity"] == keyset.extension.models[0].identity


def test_a_seed_repeats_an_answer(enclave: Process) -> None:
    """The same seed gives the same answer, another seed another one."""

    def text(seed: int) -> str:
        return str(
            enclave.ask(STREAM | {"stream": False, "seed": seed}).json()["choices"][0]["message"]["content"]
        )

    first = text(1)
    assert [text(1), text(1)] == [first, first]
    assert text(2) != first


def test_keys_rotate_under_running_requests(enclave: Process) -> None:
    """Requests keep being answered across rotations, a slow stream among them, and its receipt verifies."""
    keyset = enclave.keyset()
    slow = Sealed(keyset.key_configs()[0], STREAM | {"privacy": "cadence", "max_tokens": 500})
    outer = Outer()
    thread = threading.Thread(target=lambda: outer.__dict__.update(enclave.post(slow).__dict__))
    thread.start()
    epochs = set()
    while thread.is_alive():
        epochs.add(enclave.keyset().extension.epoch)
        assert enclave.ask(CHAT | {"model": "tiny", "max_tokens": 2}).status == 200
        thread.join(0.1)
    inner = slow.open(outer)
    assert inner.data()[-1] == "[DONE]"
    slow.check_receipt(inner, keyset)
    assert len(epochs) >= 2


def test_a_client_that_hangs_up_leaves_nothing_running(enclave: Process) -> None:
    """Abandoned streams end; the next answer is not delayed by them."""
    for _ in range(10):
        sealed = Sealed(enclave.keyset().key_configs()[0], STREAM | {"n": 4, "max_tokens": 1500})
        headers = {"content-type": sealed.media_type}
        with httpx.stream(
            "POST", enclave.url + media.GATEWAY_PATH, content=sealed.bytes, headers=headers
        ) as answer:
            next(answer.iter_raw())
    began = time.monotonic()
    assert enclave.ask(CHAT | {"model": "tiny", "max_tokens": 2}).status == 200
    assert time.monotonic() - began < 5


def test_nothing_but_happenings_is_logged(enclave: Process) -> None:
    """After good and bad requests the process has said its banner and known happenings; no prompt, no address."""
    enclave.ask(STREAM)
    enclave.ask({"messages": CANARY})
    enclave.ask({CANARY: 1})
    enclave.ask(STREAM, authority=f"{CANARY}.example")
    enclave.ask(method="GET", path=f"/{CANARY}", body=None)
    httpx.get(f"{enclave.url}/{CANARY}", headers={CANARY: CANARY})
    said = enclave.said()
    assert CANARY not in said
    lines = [line for line in said.splitlines() if line.startswith("{")]
    for line in lines:
        record = json.loads(line)
        assert record.pop("happening") in set(Happening)
        assert record.pop("error", "x").isidentifier()
        assert all(isinstance(value, int | float) for value in record.values())
    others = [line for line in said.splitlines() if not line.startswith("{")]
    assert len(others) == 2
    assert "SIMULATED" in others[0]


def test_sigterm_ends_it_cleanly(tmp_path: Path) -> None:
    """A running stream is completed, then the process ends with status 0."""
    port = free_port()
    write_configuration(tmp_path, port)
    enclave = start(tmp_path, port)
    keyset = enclave.keyset()
    sealed = Sealed(keyset.key_configs()[0], STREAM | {"privacy": "cadence", "max_tokens": 5})
    headers = {"content-type": sealed.media_type}
    with httpx.stream(
        "POST", enclave.url + media.GATEWAY_PATH, content=sealed.bytes, headers=headers
    ) as answer:
        parts = answer.iter_raw()
        received = [next(parts)]
        enclave.child.send_signal(signal.SIGTERM)
        received += parts
    inner = sealed.open(Outer(status=200, headers=dict(answer.headers), parts=received))
    sealed.check_receipt(inner, keyset)
    assert enclave.child.wait(MINUTE_S) == 0
    assert '"stopped"' in enclave.said()


@pytest.mark.parametrize("arguments", [["--help"], ["enclave.toml"], ["--port", "1"], [""]])
def test_arguments_are_refused(tmp_path: Path, arguments: list[str]) -> None:
    """The command line is the host's and not measured; there is nothing to say on it."""
    ran = subprocess.run(
        [sys.executable, "-m", "adyton_enclave", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=MINUTE_S,
        check=False,
    )
    assert ran.returncode == 2
    assert "takes no arguments" in ran.stderr


def refused(directory: Path) -> str:
    """Run an enclave that cannot start; what it says."""
    ran = subprocess.run(
        [sys.executable, "-m", "adyton_enclave"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=MINUTE_S,
        check=False,
    )
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    return ran.stderr


def test_another_model_file_is_refused(tmp_path: Path) -> None:
    """One changed byte in the model, and the enclave does not start."""
    write_configuration(tmp_path, free_port())
    path = tmp_path / "tiny.gguf"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "not those configured" in refused(tmp_path)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """The operator learns at once why the enclave does not start."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = int(holder.getsockname()[1])
        write_configuration(tmp_path, port)
        assert f"port {port}" in refused(tmp_path)


def test_without_a_configuration_it_does_not_start(tmp_path: Path) -> None:
    """The fixed name in the working directory, or nothing."""
    assert "enclave.toml" in refused(tmp_path)


def test_a_stop_while_loading_is_clean(tmp_path: Path) -> None:
    """SIGTERM before readiness ends the process too."""
    port = free_port()
    write_configuration(tmp_path, port)
    child = subprocess.Popen([sys.executable, "-m", "adyton_enclave"], cwd=tmp_path, stderr=subprocess.PIPE)
    assert child.stderr is not None
    while b"starting" not in child.stderr.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    child.stderr.read()
    child.stderr.close()
    assert child.wait(MINUTE_S) in {0, -signal.SIGTERM}


def test_a_log_line_has_no_room_for_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Of an error only the class is written."""
    note(Happening.INTERNAL_ERROR, error=ValueError(CANARY), count=3)
    assert json.loads(capsys.readouterr().err) == {
        "happening": "internal-error",
        "count": 3,
        "error": "ValueError",
    }
