# SPDX-License-Identifier: Apache-2.0
"""Search the memory of another process, as an operator with a debugger would."""

import re
from pathlib import Path

_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (r\S+) ")
_PIECE_BYTES = 1 << 22


def occurrences(pid: int, needles: list[bytes]) -> dict[bytes, int]:
    """Count each needle in every readable mapping of process ``pid``."""
    found = dict.fromkeys(needles, 0)
    overlap = max(map(len, needles)) - 1
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            mapping = _MAPPING.match(line)
            if not mapping or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, end = int(mapping[1], 16), int(mapping[2], 16)
            for at in range(start, end, _PIECE_BYTES):
                try:
                    memory.seek(at)
                    data = memory.read(min(_PIECE_BYTES + overlap, end - at))
                except (OSError, ValueError, OverflowError):
                    break
                for needle in needles:
                    found[needle] += data.count(needle)
    return found
