# SPDX-License-Identifier: Apache-2.0
"""The quote of an appliance, fetched and not appraised: to say which platform it claims to be, and nothing else."""

from typing import Final

import httpx

from adyton.address import Address
from adyton.edge import fresh_challenge
from adyton.flow import Flow, Hangup, Read, Send, fetch_report
from adyton.wire import Dialer, Wire
from adyton_protocol.errors import LocalProtocolError
from adyton_protocol.report import parse_report

_TIMEOUT_S: Final = 20.0


def quote_of_appliance(url: str, *, api_key: str | None = None) -> bytes:
    """Fetch an attestation report and return its quote; attacker-controlled.

    Raises:
        ConfigError: ``url`` is no address of an appliance.
        TransportError: The appliance cannot be reached or refuses.
        MalformedEvidence: What it sends is no report.
    """
    dialer = Dialer(address=Address.parse(url), api_key=api_key)
    with httpx.HTTPTransport(trust_env=False) as outer:
        wire = Wire(outer, dialer, httpx.Timeout(_TIMEOUT_S).as_dict())
        try:
            return parse_report(_run(fetch_report(fresh_challenge()), wire)).quote
        finally:
            wire.close()


def _run(flow: Flow[bytes], wire: Wire) -> bytes:
    try:
        effect = next(flow)
        while True:
            if not isinstance(effect, Send | Read | Hangup):
                raise LocalProtocolError("fetching a report asked for more than I/O")
            effect = flow.send(wire.perform(effect))
    except StopIteration as stop:
        report: bytes = stop.value
        return report
