# SPDX-License-Identifier: Apache-2.0
"""``python -I -m adyton_enclave``: run the enclave that ``./enclave.toml`` describes.

There is nothing to say on the command line and nothing in the environment, because neither is measured.
Exit status: 0 after SIGTERM, 2 for a configuration that cannot be served, 1 for everything else.
"""

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from adyton_enclave.attester import make_attester
from adyton_enclave.config import CONFIG_NAME, load_configuration
from adyton_enclave.log import Happening, note
from adyton_enclave.server import SWITCH_S, Surroundings, serve
from adyton_protocol.errors import AdytonError, ConfigError

_OK: Final = 0
_FAILED: Final = 1
_UNUSABLE: Final = 2


def _name_only(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """SECURITY: an uncaught exception is reported by the name of its class; its text may hold content."""
    note(Happening.INTERNAL_ERROR, error=error)


def _surroundings() -> Surroundings:
    """The one place where clocks and randomness come in."""
    return Surroundings(
        monotonic=time.monotonic,
        wall_s=lambda: int(time.time()),  # noqa: TID251 - the edge
        entropy=os.urandom,
    )


def main() -> int:
    """Run until SIGTERM.

    Returns:
        The exit status.
    """
    sys.excepthook = _name_only
    threading.excepthook = lambda args: note(Happening.INTERNAL_ERROR, error=args.exc_value)
    sys.unraisablehook = lambda args: note(Happening.INTERNAL_ERROR, error=args.exc_value)
    if len(sys.argv) > 1:
        sys.stderr.write(
            f"adyton-enclave takes no arguments; it reads {CONFIG_NAME} in its working directory\n"
        )
        return _UNUSABLE
    sys.setswitchinterval(SWITCH_S)
    try:
        configuration = load_configuration(Path())
        asyncio.run(serve(configuration, make_attester(configuration), _surroundings()))
    except AdytonError as error:
        # What ends the process is about keys of the configuration, files, models and the platform; errors of
        # requests never come this far.
        sys.stderr.write(f"adyton-enclave: {error}\n")
        return _UNUSABLE if isinstance(error, ConfigError) else _FAILED
    return _OK


if __name__ == "__main__":
    sys.exit(main())
