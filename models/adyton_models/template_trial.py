# SPDX-License-Identifier: Apache-2.0
"""Tries a chat template, of anybody's making, on a single user message.

A template is a program and may run for ever without writing anything, so it is tried in a process of its own that can
be ended. The child reads one JSON object (`source`, `bos`, `eos`) from standard input and writes what is wrong or null.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from jinja2 import TemplateError

from adyton_enclave.engine.chat_template import MAX_TEMPLATE_CHARS
from adyton_enclave.engine.template_environment import TemplateEnvironment
from adyton_enclave.engine.template_limits import TooMuch, budget

TIMEOUT_S: Final = 60.0
_MARKER: Final = "twelve pears"
Try = Callable[[str, str, str], str | None]
"""Given a template and the texts of the tokens that begin and end a text, says what is wrong; None when nothing is."""


def why_unrenderable(source: str, bos: str, eos: str) -> str | None:
    """Try a template in this process; see :data:`Try`."""
    try:
        template = TemplateEnvironment().from_string(source)
    except TemplateError as error:
        return f"no valid Jinja: {error}"
    pieces: list[str] = []
    length = 0
    try:
        with budget():
            for piece in template.generate(
                messages=[{"role": "user", "content": _MARKER}],
                bos_token=bos,
                eos_token=eos,
                add_generation_prompt=True,
            ):
                length += len(piece)
                if length > MAX_TEMPLATE_CHARS:
                    return "one short message becomes a text or a work without end"
                pieces.append(piece)
    except TooMuch:
        return "one short message becomes a text or a work without end"
    except Exception as error:  # noqa: BLE001  # a template is a program and may fail in any way
        return f"it cannot render one user message ({type(error).__name__})"
    return None if _MARKER in "".join(pieces) else "it leaves the user's message out"


def try_apart(source: str, bos: str, eos: str, *, timeout_s: float = TIMEOUT_S) -> str | None:
    """Try a template in a child process; see :data:`Try`."""
    request = json.dumps({"source": source, "bos": bos, "eos": eos})
    command = [sys.executable, "-m", "adyton_models.template_trial"]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            command, input=request, capture_output=True, text=True, timeout=timeout_s, check=True
        )
        answer: str | None = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return f"it does not come to an end within {timeout_s:.0f} s"
    except (subprocess.CalledProcessError, ValueError):
        return "the process that tried it ended without an answer"
    return answer


def main() -> int:
    """Answer one request."""
    request = json.load(sys.stdin)
    sys.stdout.write(json.dumps(why_unrenderable(request["source"], request["bos"], request["eos"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
