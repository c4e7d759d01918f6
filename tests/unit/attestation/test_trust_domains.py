# SPDX-License-Identifier: Apache-2.0
"""Simulated and real never mix: not for the type checker, not at run time, and not in silence."""

import dataclasses
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from adyton_attestation.result import AttestationResult, SealedChannel
from adyton_attestation.simulation import SimulatedAttestationWarning, SimulatedResult, SimulatedVerifier
from adyton_attestation.verifier import Verifier
from adyton_protocol.errors import MalformedEvidence
from adyton_protocol.suite import Kem

ROOT = Path(__file__).resolve().parents[3]
TYPED = ROOT / "tests" / "typing" / "simulated_is_not_real.py"


def test_the_type_checker_refuses_a_simulated_result_for_a_real_one(tmp_path: Path) -> None:
    """Mypy reports exactly the lines that are marked, with exactly the errors that they name."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(tmp_path), str(TYPED)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = {
        (int(line), code)
        for line, code in re.findall(rf"{TYPED.name}:(\d+): error: .*\[([a-z-]+)\]", done.stdout)
    }
    expected = {
        (number, marked[1])
        for number, line in enumerate(TYPED.read_text().splitlines(), start=1)
        if (marked := re.search(r"# error: ([a-z-]+)$", line))
    }
    assert found == expected, done.stdout + done.stderr
    assert len(expected) == 4


def test_the_types_are_unrelated() -> None:
    """Neither result and neither verifier is a subclass of the other."""
    assert not issubclass(SimulatedResult, AttestationResult)
    assert not issubclass(AttestationResult, SimulatedResult)
    assert not issubclass(SimulatedVerifier, Verifier)
    assert not issubclass(Verifier, SimulatedVerifier)


def test_every_use_of_the_simulation_warns(lab: Any) -> None:
    """Appraising warns, and so does each channel, in words that nobody mistakes."""
    verifier = SimulatedVerifier(lab.policy(), lab.pki.root.der())
    with pytest.warns(SimulatedAttestationWarning, match="SIMULATED"):
        result = verifier.appraise(lab.report(), lab.endorsements(), challenge=lab.challenge, now_s=lab.now_s)
    for _ in range(2):
        with pytest.warns(SimulatedAttestationWarning, match="no hardware protects"):
            result.open_channel()


def test_a_result_says_which_trust_domain_it_is_of(lab: Any) -> None:
    """The machine-readable record cannot be mistaken either."""
    record = lab.appraise().to_json()
    assert (record["tee_type"], record["trust_domain"], record["verdict"]) == (
        "simulated",
        "simulated",
        "accepted",
    )
    assert record["policy"] == {"name": "laboratory", "digest": lab.policy().digest()}


def test_the_channel_prefers_the_hybrid_key(lab: Any) -> None:
    """X-Wing when the keyset offers it, X25519 otherwise, and nothing at all without either."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimulatedAttestationWarning)
        channel = lab.appraise().open_channel()
    assert isinstance(channel, SealedChannel)
    assert channel.config.kem is Kem.X_WING
    assert channel.expires_at_s == lab.keyset.not_after
    sealer = channel.sealer(chunked=True)
    assert sealer.key_id == channel.config.key_id
    assert len(sealer.enc) == Kem.X_WING.enc_bytes


def test_a_keyset_without_sealing_keys_opens_no_channel(lab: Any) -> None:
    """Attested or not, without a key that we know there is nothing to seal to."""
    bare = dataclasses.replace(lab, keyset=lab.with_keyset(e2ee_public_keys=()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimulatedAttestationWarning)
        result = bare.appraise()
        with pytest.raises(MalformedEvidence):
            result.open_channel()
