# SPDX-License-Identifier: Apache-2.0
"""The program that compares answers for :mod:`adyton_models.math_verify`, in a process that may be killed.

One JSON object a line: `{"expected": …, "found": …}` comes in, `{"same": …}` goes out. What it computes with is a
model's to choose, so its memory is limited, and whoever started it limits its time.
"""

import json
import resource
import sys
from collections.abc import Callable
from typing import Final

MAX_MEMORY_BYTES: Final = 4 << 30
"""Of address space; sympy alone takes some 200 MB of it."""
TIMEOUT_S: Final = 2
"""Of each of math-verify's own alarms: two readings and one comparison."""


def compare(expected: str, found: str) -> bool:
    """Whether math-verify finds two answers equal; both are read as LaTeX."""
    from math_verify import parse, verify  # noqa: PLC0415 - optional

    wanted, answer = (parse(f"${text.strip('$ ')}$", parsing_timeout=TIMEOUT_S) for text in (expected, found))
    return bool(wanted and answer and verify(wanted, answer, timeout_seconds=TIMEOUT_S))


def serve(compare_pair: Callable[[str, str], bool]) -> None:
    """Answer pairs until there are no more."""
    print(json.dumps({"ready": True}), flush=True)  # noqa: T201 - the protocol
    for line in sys.stdin:
        pair = json.loads(line)
        try:
            same = compare_pair(pair["expected"], pair["found"])
        except Exception:  # noqa: BLE001 - whatever goes wrong in there, the answers are not known to be equal
            same = False
        print(json.dumps({"same": same}), flush=True)  # noqa: T201 - the protocol


def main() -> None:
    """Limit ourselves, load math-verify, and serve."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    compare("1", "1")
    serve(compare)


if __name__ == "__main__":
    main()
