# SPDX-License-Identifier: Apache-2.0
"""Show that each protection is held by a test: remove it in a copy of the tree, and watch the test fail.

``mutations.toml`` beside this file names, for each promise, a file, a line that protects, what stands there
when it is gone, and the test that must notice. This script copies the tree, gives the copy its own
virtual environment (our packages from the copy, dependencies from this interpreter's), applies one mutation
after the other, runs the named test, and demands that it fails. First it demands that all pass unmutated.

Usage: ``python tests/promises/prove.py [--only NAME] [--table]``
"""

import argparse
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
MUTATIONS: Final = Path(__file__).with_name("mutations.toml")
PACKAGES: Final = ("protocol", "attestation", "enclave", "host", "client", "models")
SCRIPTS: Final = {
    "adyton": "adyton.cli",
    "adyton-host": "adyton_host.cli",
    "adyton-enclave": "adyton_enclave.__main__",
    "adyton-models": "adyton_models.cli",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One protection, how to remove it, and the test that must notice."""

    name: str
    promise: int
    protects: str
    file: str
    line: str
    without: str
    test: str


def load() -> list[Mutation]:
    """Read ``mutations.toml``; unknown or missing members are errors."""
    return [Mutation(**entry) for entry in tomllib.loads(MUTATIONS.read_text())["mutation"]]


def apply(mutation: Mutation, tree: Path) -> str:
    """Remove one protection in ``tree``; return the original text.

    Raises:
        LookupError: The line is not there exactly once, so that the table is out of date.
    """
    path = tree / mutation.file
    original = path.read_text()
    if original.count(mutation.line) != 1:
        raise LookupError(
            f"{mutation.name}: {mutation.file} holds the line {original.count(mutation.line)} times, not once"
        )
    path.write_text(original.replace(mutation.line, mutation.without))
    return original


def copy_tree(destination: Path) -> None:
    """Copy what is under version control (or about to be) and build the copy's own environment."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        source = ROOT / name
        if source.is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, destination / name)
    venv.create(destination / ".venv", symlinks=True)
    site = destination / ".venv" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    # A path inside a .pth file is added without reading the .pth files that lie there, so the dependencies
    # come along and the editable install of the original tree does not.
    lines = [*(str(destination / package) for package in PACKAGES)]
    lines += [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (site / "tree.pth").write_text("\n".join(lines) + "\n")
    for script, module in SCRIPTS.items():
        path = destination / ".venv" / "bin" / script
        path.write_text(
            f"#!{destination}/.venv/bin/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
        )
        path.chmod(0o755)


def run_test(tree: Path, test: str) -> subprocess.CompletedProcess[str]:
    """Run one test in the copy, slow ones included."""
    command = [
        str(tree / ".venv" / "bin" / "python"),
        "-m",
        "pytest",
        "-q",
        "-x",
        "-m",
        "",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run(
        [*command, test], cwd=tree, capture_output=True, text=True, check=False, timeout=600
    )


def table(mutations: list[Mutation]) -> str:
    """Return the table of ``docs/promises.md``."""
    rows = ["| promise | protection | test | file | line whose removal breaks it |", "|---|---|---|---|---|"]
    for m in sorted(mutations, key=lambda mutation: mutation.promise):
        test, line = m.test.rsplit("::", 1)[-1], m.line.strip().splitlines()[-1].strip()
        rows.append(f"| {m.promise} | {m.protects} | `{test}` | `{m.file}` | `{line}` |")
    return "\n".join(rows)


def main() -> int:
    """Prove every mutation, or print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", help="prove the one mutation of this name")
    parser.add_argument("--table", action="store_true", help="print the table for docs/promises.md and stop")
    arguments = parser.parse_args()
    mutations = [m for m in load() if arguments.only in {None, m.name}]
    if arguments.table:
        print(table(mutations))
        return 0
    unnoticed = 0
    with tempfile.TemporaryDirectory(prefix="adyton-prove-") as scratch:
        tree = Path(scratch)
        copy_tree(tree)
        for test in sorted({mutation.test for mutation in mutations}):
            sound = run_test(tree, test)
            if sound.returncode:
                print(f"FAILS UNMUTATED  {test}\n{sound.stdout[-2000:]}")
                return 1
        for mutation in mutations:
            original = apply(mutation, tree)
            # Some protections keep llama.cpp from ending the process; without them it does.
            noticed = run_test(tree, mutation.test).returncode in {1, -signal.SIGABRT}
            (tree / mutation.file).write_text(original)
            unnoticed += not noticed
            print(
                f"{'noticed ' if noticed else 'UNNOTICED'}  promise {mutation.promise}  {mutation.name}",
                flush=True,
            )
    print(f"{len(mutations) - unnoticed} of {len(mutations)} removals noticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    raise SystemExit(main())
