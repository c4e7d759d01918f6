# SPDX-License-Identifier: Apache-2.0
"""Sends a model key to an appraised enclave, through the sealed channel and no other way.

The policy decides what enclave is accepted at all, as for every client. On top of it, the attested keyset has to name
the model with the identity that the key is for: the same weights, tokenizer, template, context and sampling. That
check is part of every appraisal here, a renewed one included, so that no key is sealed to keys that were not attested
together with this very model.
"""

import json
from dataclasses import dataclass
from typing import Final

import httpx

from adyton.address import INNER_BASE_URL, Address
from adyton.edge import fresh_challenge, wall_clock_s
from adyton.session import Appraiser, Verdict
from adyton.simulation import Simulation
from adyton.transport import OUTER_LIMITS, Driver, Link, SealedTransport
from adyton.trust import PolicySource, new_session
from adyton.wire import Dialer
from adyton_attestation.endorsements import Endorsements
from adyton_attestation.marks import NO_MARKS, HighWaterMarks
from adyton_protocol.digests import Digest
from adyton_protocol.errors import AppraisalError, ConfigError, RemoteProtocolError
from adyton_protocol.report import AttestationReport
from adyton_protocol.sealed_model import ModelKey

_TIMEOUT: Final = httpx.Timeout(3600.0, connect=5.0)
"""The answer comes when the models are loaded. Seconds."""
_OK: Final = 200
_WAITING: Final = 202
RELEASED_MODEL_CHECK: Final = "released-model"
"""The check that the keyset names the model with the identity that the key is for."""


class KeyRefused(ConfigError):
    """The enclave did not take the key, or could not load the model with it.

    Attributes:
        reason: The enclave's code for it, such as ``sealed_model_key``.
    """

    code = "key-refused"

    def __init__(self, message: str, *, reason: str) -> None:
        """Keep the code beside the message."""
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a key may go.

    Attributes:
        url: Address of the appliance.
        model: Name of the model.
        identity: The identity that the attested keyset has to give it.
        policy: Of a real appliance.
        simulation: Trust anchors of a simulated one, instead.
        api_key: Credential for the host.
    """

    url: str
    model: str
    identity: Digest
    policy: PolicySource | None = None
    simulation: Simulation | None = None
    api_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What became of a released key.

    Attributes:
        verdict: The appraisal that it rested on.
        state: ``serving``, or ``waiting`` for the keys of other models.
        missing: Those models.
    """

    verdict: Verdict
    state: str
    missing: tuple[str, ...] = ()


class ForOneModel:
    """An appraiser that also demands that the attested keyset names one model with one identity."""

    def __init__(self, appraiser: Appraiser, model: str, identity: Digest) -> None:
        """Ask ``appraiser`` first."""
        self._appraiser = appraiser
        self._model = model
        self._identity = identity

    def appraise(
        self,
        report: AttestationReport,
        endorsements: Endorsements,
        *,
        challenge: str,
        now_s: int,
        marks: HighWaterMarks = NO_MARKS,
        releases: bytes | None = None,
    ) -> Verdict:
        """Appraise, and compare the identity.

        Raises:
            AttestationError: The evidence is not accepted, or is about another model.
        """
        verdict = self._appraiser.appraise(
            report, endorsements, challenge=challenge, now_s=now_s, marks=marks, releases=releases
        )
        models = {model.name: model.identity for model in verdict.keyset.extension.models}
        found = models.get(self._model)
        # SECURITY: the key opens exactly one model; an enclave that would serve another has no need of it.
        if found != self._identity:
            raise AppraisalError(
                RELEASED_MODEL_CHECK,
                expected=f"the model {self._model!r} with identity {self._identity}",
                actual="no model of this name" if found is None else f"identity {found}",
            )
        return verdict


def release_key(
    key: ModelKey, destination: Destination, *, outer: httpx.BaseTransport | None = None
) -> Release:
    """Appraise an enclave and send it a key. The caller wipes the key.

    Args:
        key: The key.
        destination: Where it may go.
        outer: How to reach the host; trust does not rest on it.

    Raises:
        AttestationError: The enclave is not accepted, or is about another model. Nothing was sent.
        KeyRefused: The enclave refused the key, or the model does not load. It still waits.
        TransportError: The host cannot be reached.
        ProtocolError: The answer is not a sealed answer of the enclave.
    """
    session = new_session(
        destination.policy,
        destination.simulation,
        lambda appraiser: ForOneModel(appraiser, destination.model, destination.identity),
    )
    link = Link(
        Dialer(address=Address.parse(destination.url), api_key=destination.api_key),
        session,
        clock=wall_clock_s,
        challenges=fresh_challenge,
    )
    outer = httpx.HTTPTransport(trust_env=False, limits=OUTER_LIMITS) if outer is None else outer
    driver = Driver(link, outer)
    with httpx.Client(
        transport=SealedTransport(driver),
        base_url=INNER_BASE_URL,
        timeout=_TIMEOUT,
        trust_env=False,
        follow_redirects=False,
    ) as client:
        verdict = driver.attest(anew=True).verdict
        secret = key.reveal()
        try:
            response = client.put(
                f"/v1/adyton/models/{destination.model}/key",
                content=bytes(secret),
                headers={"content-type": "application/octet-stream"},
            )
        finally:
            secret[:] = bytes(len(secret))
            outer.close()
    return _outcome(response, verdict)


def _outcome(response: httpx.Response, verdict: Verdict) -> Release:
    try:
        document = json.loads(response.content)
        if response.status_code in {_OK, _WAITING}:
            return Release(
                verdict=verdict, state=str(document["state"]), missing=tuple(document.get("missing", ()))
            )
        error = document["error"]
        message, reason = str(error["message"]), str(error["code"])
    except (ValueError, KeyError, TypeError) as cause:
        raise RemoteProtocolError("the enclave's answer to the key is not understood") from cause
    raise KeyRefused(f"the enclave refused: {message} ({reason})", reason=reason)
