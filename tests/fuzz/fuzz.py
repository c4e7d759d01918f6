# SPDX-License-Identifier: Apache-2.0
"""Fuzz the targets under atheris, which steers by coverage: ``python tests/fuzz/fuzz.py [TARGET ...] [--seconds N]``.

Each target runs in a process of its own, for a bounded time, from its genuine inputs. What it finds, a crash, a hang or
an acceptance, is left as a file in ``build/fuzz/TARGET/``, and is worth an explicit test. Where atheris cannot be
installed (it needs a wheel for this Python), this says so and ends with status 0.
"""

import argparse
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
FOUND: Final = ROOT / "build" / "fuzz"
MAX_BYTES: Final = 64 * 1024
TIMEOUT_S: Final = 10


def main() -> int:
    """Run the targets one after the other; returns 1 when one has found something."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("targets", nargs="*", help="which (default: all)")
    parser.add_argument("--seconds", type=int, default=30, help="time for each (default %(default)s)")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print(
            'SKIPPED: atheris is not installed; try: pip install -e ".[fuzz]" (it needs a wheel for this Python)'
        )
        return 0
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    if arguments.inside:
        return _inside(arguments.inside, arguments.seconds)
    from fuzz_targets import TARGETS  # noqa: PLC0415 - our own modules are instrumented where they are fuzzed

    known = [target.name for target in TARGETS]
    unknown = set(arguments.targets) - set(known)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    failed = []
    for name in arguments.targets or known:
        command = [sys.executable, str(Path(__file__)), "--inside", name, "--seconds", str(arguments.seconds)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        print(f"{'FOUND ' if done.returncode else 'clean '} {name:24} {_summary(done.stderr)}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-4000:])
    return 1 if failed else 0


def _summary(log: str) -> str:
    """The last line of libFuzzer that says how far it came."""
    lines = [line for line in log.splitlines() if line.startswith(("Done", "#"))]
    return lines[-1] if lines else ""


def _inside(name: str, seconds: int) -> int:
    import atheris  # noqa: PLC0415 - optional

    with atheris.instrument_imports(include=["adyton_attestation", "adyton_protocol"]):
        from fuzz_targets import TARGETS, timed  # noqa: PLC0415

    (target,) = [item for item in TARGETS if item.name == name]
    corpus = FOUND / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
        timed(target, seed)

    def test_one_input(data: bytes) -> None:
        timed(target, data)

    options = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={seconds}",
        f"-max_len={MAX_BYTES}",
        f"-timeout={TIMEOUT_S}",
        f"-artifact_prefix={FOUND / name}/",
        "-print_final_stats=0",
    ]
    atheris.Setup(options, test_one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
