# SPDX-License-Identifier: Apache-2.0
"""Readers of ``tests/vectors/aci_*.json``."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent / "vectors"


def load(name: str) -> Any:
    """Return one vector file."""
    return json.loads((VECTORS / name).read_text())


UPSTREAM = load("aci_upstream.json")
EXCHANGE = load("aci_exchange.json")
_REJECTED = load("aci_rejected.json")


def rejected(target: str) -> list[tuple[str, Any]]:
    """Return name and document of every refused change to the target's accepted document."""
    cases = [case for case in _REJECTED["rejected"] if case["target"] == target]
    return [(case["name"], _changed(EXCHANGE[target], case)) for case in cases]


def rejection_code(target: str) -> str:
    """Return the error code with which the target's parser refuses them."""
    return str(_REJECTED["code"][target])


def _changed(document: Any, case: Any) -> Any:
    result = deepcopy(document)
    place = result
    for step in case["path"][:-1]:
        place = place[step]
    last = case["path"][-1]
    if case.get("remove"):
        del place[last]
        return result
    value = case["value"]
    if isinstance(value, dict) and set(value) == {"repeat"}:
        text, count = value["repeat"]
        value = text * count
    place[last] = value
    return result
