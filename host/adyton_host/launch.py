# SPDX-License-Identifier: Apache-2.0
"""Become another program, but not outlive the process that asked for it. Runs as a script, alone.

``python -I -S launch.py PARENT_PID PROGRAM [ARGUMENT ...]`` asks Linux to kill this process when the thread
that started it ends (``PR_SET_PDEATHSIG``, kept across ``execve``), checks that this has not happened yet,
and executes the program. A ``preexec_fn`` would do the same between fork and exec, where a threaded parent
must not run Python.
"""

import ctypes
import os
import signal
import sys
from typing import Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1
_FIXED_ARGUMENTS: Final = 3


def main(argv: list[str]) -> NoReturn:
    """Execute the program named by ``argv``, or exit with a status of ``sysexits.h``."""
    if len(argv) < _FIXED_ARGUMENTS:
        sys.exit(os.EX_USAGE)
    parent, program = int(argv[1]), argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
        sys.exit(os.EX_UNAVAILABLE)
    os.execv(program[0], program)  # noqa: S606 -- no shell is the point; the program is the operator's own


if __name__ == "__main__":
    main(sys.argv)
