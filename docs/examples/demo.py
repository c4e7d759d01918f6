# SPDX-License-Identifier: Apache-2.0
"""The whole appliance in one go: start it, ask a sealed question, verify everything, shut it down.

Runs the same commands that you would type. The answer is searched for (``auto``) and judged in the enclave: what is
printed beside it are the vote, the scorer's verdict on each step, and the receipt, from which the choice is made again
without the appliance. The question comes from the held-out set: its template and graph
were not seen in training. The expected answer is known, and the demo fails unless the model found it.

Usage: ``python docs/examples/demo.py [--keep DIR]``
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BIN: Final = Path(sys.executable).parent
START_TIMEOUT_S: Final = 60


def say(line: str = "") -> None:
    """Print at once, so that our lines and the commands' lines stay in order."""
    print(line, flush=True)


def show_command(*words: str) -> None:
    """Print a command the way a person would type it."""
    say("\n$ " + " ".join(f"'{word}'" if " " in word else word for word in words))


@contextlib.contextmanager
def appliance(state: Path) -> Iterator[str]:
    """Run ``adyton-host up --simulate`` on a free port; yield its base URL; stop it afterwards."""
    command = [str(BIN / "adyton-host"), "up", "--simulate", "--port", "0", "--json",
               "--state", str(state / "state"), "--simulation-dir", str(state / "simulation")]  # fmt: skip
    show_command("adyton-host", "up", "--simulate", "&")
    log = (state / "host.log").open("w+")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as host:
        try:
            ready = host.stdout.readline() if host.stdout else ""
            if not ready:
                log.seek(0)
                raise SystemExit(f"the appliance did not start:\n{log.read()}")
            url: str = json.loads(ready)["base_url"]
            say(f"  ready on {url}")
            yield url
        finally:
            host.send_signal(signal.SIGTERM)
            try:
                host.wait(timeout=15)
            except subprocess.TimeoutExpired:
                host.kill()
    say(f"\n  appliance stopped (exit {host.returncode})")


def run(*arguments: str, quiet: tuple[str, ...] = ()) -> str:
    """Run one ``adyton`` command in the open, without showing ``quiet`` arguments; return what it printed."""
    show_command("adyton", *arguments)
    printed = bytearray()
    command = [str(BIN / "adyton"), *arguments, *quiet]
    # One pipe for both, so that lines keep their order.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        if process.stdout is not None:
            # Unbuffered reads keep the stream of the answer visible as it arrives.
            while piece := os.read(process.stdout.fileno(), 4096):
                printed += piece
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
    if process.returncode:
        raise SystemExit(f"adyton {arguments[0]} failed with exit code {process.returncode}")
    return printed.decode()


def main() -> int:
    """Run the demonstration; return 0 only when the answer is right and the replay finds the same choice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--keep", type=Path, help="keep state and transcript in this directory")
    arguments = parser.parse_args()
    problem = json.loads((ROOT / "docs" / "examples" / "demo_problem.json").read_text())
    started_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="adyton-demo-"))
        state: Path = arguments.keep or Path(scratch)
        state.mkdir(parents=True, exist_ok=True)
        search = state / "search.json"
        url = stack.enter_context(appliance(state))
        where = ("--url", url, "--simulation-dir", str(state / "simulation"))
        run("verify", "--simulated", "--brief", quiet=where)
        # A seed makes the run repeatable; auto decides by what was measured with this model how to search.
        text = run("ask", "--simulated", "--strategy", "auto", "--explain", problem["question"],
                   quiet=(*where, "--seed", "1", "--save-transcript", str(search)))  # fmt: skip
        run("receipt", "replay", str(search), "--simulated",
            quiet=("--simulation-dir", str(state / "simulation")))  # fmt: skip
    match = re.search(r"The answer is:? *(-?[0-9]+)", text)
    found = match[1] if match else ""
    say()
    if found != str(problem["answer"]):
        say(f"demo: the model answered {found!r}; the right answer is {problem['answer']}")
        return 1
    say(f"demo: the answer {found} is correct; the question is held out from training")
    say(f"demo: finished in {time.monotonic() - started_s:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
