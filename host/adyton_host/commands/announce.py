# SPDX-License-Identifier: Apache-2.0
"""What ``adyton-host up`` says once its enclave attests: to a person, or as one line of JSON."""

import dataclasses
import json
from typing import Final

from adyton_host.config import default_simulation_dir
from adyton_host.service import Ready

_QUESTION: Final = '"Leo has 12 pens. Mia has 4 more pens than Leo. How many pens does Mia have?"'


def announce_json(ready: Ready) -> None:
    """One line on standard output."""
    line = {"event": "waiting-for-keys" if ready.waiting else "ready", **dataclasses.asdict(ready)}
    print(json.dumps(line, default=str), flush=True)


def announce(ready: Ready) -> None:
    """A few lines, and the next commands to type."""
    title = "waiting for keys" if ready.waiting else "ready"
    print(f"{title} ({'SIMULATED' if ready.simulated else 'SGX'})")
    print(f"  base URL    {ready.base_url}")
    if ready.ra_tls_url:
        print(f"  RA-TLS      {ready.ra_tls_url}")
    what, value = ("sealed", ", ".join(ready.waiting)) if ready.waiting else ("model", ready.model)
    print(f"  {what:<11} {value}")
    if ready.mrenclave:
        print(f"  MRENCLAVE   {ready.mrenclave}")
    print(f"  processes   host {ready.pid}, enclave {ready.enclave_pid}")
    print(f"  logs        {ready.state_dir}\n")
    print(_waiting(ready) if ready.waiting else _next(ready))
    print("\nCtrl-C stops the relay and the enclave.", flush=True)


def _next(ready: Ready) -> str:
    trust = _trust(ready)
    return f"next, in another terminal:\n  adyton verify {trust}\n  adyton ask {trust} {_QUESTION}"


def _waiting(ready: Ready) -> str:
    releases = "\n".join(
        f"  adyton-models release-key {name} --key KEYFILE {_trust(ready)}" for name in ready.waiting
    )
    return (
        "The enclave attests and answers nothing else yet. Whoever holds the key releases it, from a machine of their "
        f"own:\n{releases}"
    )


def _trust(ready: Ready) -> str:
    """What a client has to say to accept this appliance; the policy of a real one comes with its release."""
    if not ready.simulated:
        return f"--policy policy.toml --url {ready.base_url}"
    where = f"--simulated --url {ready.base_url}"
    if ready.simulation_dir != default_simulation_dir():
        where += f" --simulation-dir {ready.simulation_dir}"
    return where
