# SPDX-License-Identifier: Apache-2.0
"""Start the appliance with an enclave that says how it is doing from inside: timers, or the engine's own books.

A simulated enclave that is started through this file runs the same code as any other, in a process that also writes
a small JSON file again and again. For measurements only: the host's ordinary command cannot be made to do this.

As a script (only :func:`host_program` starts it so): ``inside.py adyton-host WHAT FILE ARGUMENTS...`` is the host,
``inside.py adyton_enclave WHAT FILE`` the enclave. ``WHAT`` is ``timers`` or ``books``.
"""

import dataclasses
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from profile_step import STEP_POINTS, TOKEN_POINTS
from timers import Timers

What = Literal["timers", "books"]
_EVERY_S: Final = 0.2


def host_program(what: What, file: Path) -> list[str]:
    """The command to use in place of ``adyton-host``."""
    return [sys.executable, str(Path(__file__).resolve()), "adyton-host", what, str(file)]


def read(file: Path) -> dict[str, Any]:
    """What the enclave last wrote, after waiting for all that has happened until now."""
    time.sleep(2.5 * _EVERY_S)
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def _write_regularly(file: Path, describe: Callable[[], dict[str, Any]]) -> None:
    partial = file.with_suffix(".part")

    def write() -> None:
        while True:
            partial.write_text(json.dumps(describe()))
            partial.replace(file)
            time.sleep(_EVERY_S)

    threading.Thread(target=write, name="inside", daemon=True).start()


def _timers() -> Callable[[], dict[str, Any]]:
    timers = Timers()
    timers.install((*STEP_POINTS, *TOKEN_POINTS))
    return timers.snapshot


def _books() -> Callable[[], dict[str, Any]]:
    """The engine's status, from the moment that the server makes an engine."""
    from adyton_enclave import server  # noqa: PLC0415 - only in the enclave's process

    engines: list[Any] = []
    make_engine = server.make_engine

    def remember(*arguments: Any) -> Any:
        engines.append(make_engine(*arguments))
        return engines[-1]

    vars(server)["make_engine"] = remember

    def describe() -> dict[str, Any]:
        lanes = [status for engine in engines for status in engine.status().values()]
        return {"lanes": [dataclasses.asdict(lane) for lane in lanes], "threads": threading.active_count()}

    return describe


def _enclave(what: str, file: Path) -> int:
    from adyton_enclave import __main__ as entry  # noqa: PLC0415 - only in the enclave's process

    _write_regularly(file, _timers() if what == "timers" else _books())
    sys.argv = sys.argv[:1]
    return entry.main()


def _host(what: str, file: Path, arguments: list[str]) -> int:
    """``adyton-host``; the one thing that differs is the command of the enclave."""
    from adyton_host import cli  # noqa: PLC0415 - only in the host's process

    command = (sys.executable, str(Path(__file__).resolve()), "adyton_enclave", what, str(file))
    vars(cli)["SIMULATED_ENCLAVE"] = command
    return cli.main(arguments)


if __name__ == "__main__":
    role, chosen, where = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    raise SystemExit(
        _enclave(chosen, where) if role == "adyton_enclave" else _host(chosen, where, sys.argv[4:])
    )
