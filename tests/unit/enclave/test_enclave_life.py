# SPDX-License-Identifier: Apache-2.0
"""The life of the process, piece by piece: before readiness, during rotation, after the engine has died."""

import asyncio

import pytest
from unit.enclave.harness import CHAT, Enclave, FakeAttester, Outer, call

from adyton_enclave.evidence import TokenBucket
from adyton_enclave.server import Front, _live, make_desk
from adyton_protocol import media
from adyton_protocol.errors import AttestationError, EngineStopped


@pytest.mark.parametrize("path", ["/readyz", media.GATEWAY_PATH, media.ATTESTATION_PATH, "/v1/models"])
async def test_before_it_is_ready_everything_is_a_503(path: str) -> None:
    """The host learns that the enclave is there and not ready; nothing is served before the first attestation."""
    outer = await call(Front(), "GET", path)
    assert (outer.status, outer.problem()) == (503, media.PROBLEM_UNAVAILABLE)
    assert outer.headers["retry-after"] == "1"


async def test_an_unexpected_failure_at_the_edge_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The server never sees the exception, so it cannot log it; the connection ends without an answer."""
    front = Front()

    async def broken(*_arguments: object) -> None:
        raise RuntimeError("canary-22d0")

    front.gateway = broken  # type: ignore[assignment]
    outer = await call(front, "GET", "/readyz")
    assert outer == Outer()
    logged = capsys.readouterr().err
    assert "RuntimeError" in logged
    assert "canary" not in logged


async def test_a_dead_engine_ends_the_process() -> None:
    """Only a new process helps, so the watch raises and the supervisor starts one."""
    enclave = Enclave()
    enclave.engine.failed = True
    with pytest.raises(EngineStopped):
        await _live(enclave.ring, enclave.engine)  # type: ignore[arg-type]


async def test_a_platform_that_fails_is_a_503(capsys: pytest.CaptureFixture[str]) -> None:
    """No quote, no report; the host is told that it is the platform."""

    class Broken(FakeAttester):
        def quote(self, report_data: bytes) -> bytes:
            raise AttestationError("the platform gave no quote")

    enclave = Enclave()
    desk = make_desk(enclave.configuration, Broken(), enclave.ring, enclave.clock.surroundings())  # type: ignore[arg-type]
    enclave.gateway._desk = desk
    outer = await call(enclave.gateway, "GET", media.ATTESTATION_PATH, query=b"nonce=" + b"a" * 64)
    assert (outer.status, outer.problem()) == (503, media.PROBLEM_UNAVAILABLE)
    assert "quote-failed" in capsys.readouterr().err
    # And the next request works.
    assert (await enclave.ask(CHAT)).status == 200


async def test_quotes_are_made_one_at_a_time() -> None:
    """The platform's pseudo-files hold one state for the whole process."""
    running = 0
    most = 0

    class Slow(FakeAttester):
        def quote(self, report_data: bytes) -> bytes:
            nonlocal running, most
            running += 1
            most = max(most, running)
            quote = super().quote(report_data)
            running -= 1
            return quote

    enclave = Enclave()
    desk = make_desk(enclave.configuration, Slow(), enclave.ring, enclave.clock.surroundings())  # type: ignore[arg-type]
    reports = await asyncio.gather(*(desk.attest(f"{number:064x}") for number in range(20)))
    assert most == 1
    assert all(report.quote == b"quote over " + report.report_data() for report in reports)


def test_the_rate_limit_refills() -> None:
    """A burst at once, then the average; waiting tells how long."""
    now_s = 0.0
    bucket = TokenBucket(per_minute=60, burst=2, monotonic=lambda: now_s)
    assert [bucket.wait_s() for _ in range(3)] == [0.0, 0.0, 1.0]
    now_s = 0.5
    assert bucket.wait_s() == 0.5
    now_s = 1.0
    assert bucket.wait_s() == 0.0
    now_s = 1000.0
    assert [bucket.wait_s() for _ in range(3)] == [0.0, 0.0, 1.0]
