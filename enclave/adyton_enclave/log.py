# SPDX-License-Identifier: Apache-2.0
"""The enclave's log: a closed list of happenings, with numbers and names of error classes.

SECURITY: there is no way to log a text. A message that could carry text would one day carry a prompt, and the host
reads every line.
"""

import enum
import json
import sys
from typing import TextIO


class Happening(enum.StrEnum):
    """Everything that the enclave ever says."""

    STARTING = "starting"
    WAITING_FOR_KEYS = "waiting-for-keys"
    KEY_REFUSED = "key-refused"
    MODELS_REFUSED = "models-refused"
    MODELS_LOADED = "models-loaded"
    READY = "ready"
    EPOCH_BEGUN = "epoch-begun"
    QUOTE_FAILED = "quote-failed"
    INTERNAL_ERROR = "internal-error"
    SHUTTING_DOWN = "shutting-down"
    STOPPED = "stopped"


def note(
    happening: Happening,
    *,
    error: BaseException | None = None,
    stream: TextIO | None = None,
    **numbers: float,
) -> None:
    """Write one line of JSON to stderr.

    Args:
        happening: What happened.
        error: Of which only the name of the class is written.
        stream: Where to write instead of stderr.
        **numbers: Counts, seconds, key ids.
    """
    line: dict[str, float | str] = {"happening": happening.value, **numbers}
    if error is not None:
        line["error"] = type(error).__name__
    out = sys.stderr if stream is None else stream
    out.write(json.dumps(line) + "\n")
    out.flush()
