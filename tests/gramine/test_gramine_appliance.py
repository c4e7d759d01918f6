# SPDX-License-Identifier: Apache-2.0
"""The whole appliance with its enclave under gramine-direct: what users do, and what operators do to it."""

import json
from pathlib import Path

import httpx
import pytest

from appliance import Appliance

pytestmark = [pytest.mark.gramine, pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).resolve().parents[2]
PROBLEM = json.loads((ROOT / "docs" / "examples" / "demo_problem.json").read_text())
MESSAGES = [{"role": "user", "content": PROBLEM["question"]}]


def ask(appliance: Appliance, **options: object) -> str:
    """One greedy answer, in one piece."""
    body = {"messages": MESSAGES, "max_tokens": 160, "temperature": 0, **options}
    with appliance.client() as client, client.http() as http:
        answered = http.post("/v1/chat/completions", json=body, timeout=300)
    answered.raise_for_status()
    text: str = answered.json()["choices"][0]["message"]["content"]
    return text


def stream(appliance: Appliance, *, pieces: int | None = None) -> str:
    """The same as a stream; with ``pieces``, hang up after so many."""
    body = {"messages": MESSAGES, "max_tokens": 160, "temperature": 0, "stream": True}
    told: list[str] = []
    with (
        appliance.client() as client,
        client.http() as http,
        http.stream("POST", "/v1/chat/completions", json=body, timeout=300) as response,
    ):
        for line in response.iter_lines():
            if line.startswith("data: {"):
                told += [choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"]]
            if pieces is not None and len(told) >= pieces:
                break
    return "".join(told)


def test_the_enclave_runs_under_gramine(gramine_appliance: Appliance) -> None:
    """Not beside it: the process of the enclave is Gramine's loader, and it says that it simulates."""
    assert "libpal.so" in " ".join(gramine_appliance.enclave.cmdline())
    assert httpx.get(gramine_appliance.url + "/readyz", trust_env=False).json()["simulated"] is True


def test_every_check_of_the_verifier_passes_or_is_skipped(gramine_appliance: Appliance) -> None:
    """Measurement, configuration, models and channel are those that were rendered."""
    verdict = json.loads(gramine_appliance.adyton("verify", "--json").stdout)
    assert {check["verdict"] for check in verdict["checks"]} <= {"pass", "skip"}


def test_an_answer_is_the_same_streamed_or_not(gramine_appliance: Appliance) -> None:
    """And right, with its receipt checked on the way."""
    answer = ask(gramine_appliance)
    assert stream(gramine_appliance) == answer
    assert answer


def test_an_answer_is_the_same_in_gramine_and_out_of_it(
    gramine_appliance: Appliance, appliance: Appliance
) -> None:
    """Token for token: the library operating system changes no number."""
    assert ask(gramine_appliance) == ask(appliance)


def test_a_search_runs_under_gramine(gramine_appliance: Appliance) -> None:
    """Several candidates, scored by the second model in the same loop."""
    assert ask(gramine_appliance, scaling={"strategy": "weighted", "n": 4}, temperature=0.8, seed=1)


def test_a_caller_who_hangs_up_leaves_nothing_running(gramine_appliance: Appliance) -> None:
    """The next caller gets a whole answer."""
    for _ in range(3):
        stream(gramine_appliance, pieces=2)
    assert stream(gramine_appliance) == ask(gramine_appliance)


def test_many_at_once_are_answered_alike(gramine_appliance: Appliance) -> None:
    """Threads, wake-ups and sockets hold under load."""
    body = {"messages": MESSAGES, "max_tokens": 40, "temperature": 0, "n": 8}
    with gramine_appliance.client() as client, client.http() as http:
        answered = http.post("/v1/chat/completions", json=body, timeout=300).raise_for_status()
    assert len({choice["message"]["content"] for choice in answered.json()["choices"]}) == 1


def test_an_enclave_that_is_killed_comes_back(gramine_appliance: Appliance) -> None:
    """The supervisor starts Gramine again, with new keys, and clients follow."""
    before = ask(gramine_appliance)
    gramine_appliance.kill_enclave(patience_s=240)
    assert ask(gramine_appliance) == before
