# SPDX-License-Identifier: Apache-2.0
"""Files of solutions that a generator sampled: JSON lines, one problem with its solutions each, append-only.

The checker's labels are not in them: it gives them again whenever they are read, and reads the problem as a text.
Shares of rollouts are, because they cost a hundred times as much as the solutions did.
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from random import Random  # noqa: TID251 - reproducible data, no secret

from adyton_models.tasks.facts import Facts
from adyton_models.tasks.reader import read_problem


def lines_of(text: str) -> list[str]:
    """The non-empty lines of a solution, white space normalised as the checker does it."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [line for line in lines if line]


@dataclass(frozen=True, kw_only=True)
class SampledProblem:
    """A problem, its number of steps, and what a generator answered."""

    problem: str
    steps: int
    solutions: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...] = ()
    """For each line of each solution, the share of rollouts from there that gave the right answer; or empty."""

    def facts(self) -> Facts:
        """The problem's facts; read once."""
        return self._facts

    @cached_property
    def _facts(self) -> Facts:
        return read_problem(self.problem)

    def as_line(self) -> str:
        """The line of a file."""
        document = asdict(self)
        if not self.shares:
            del document["shares"]
        return json.dumps(document) + "\n"


def read_samples(path: Path) -> list[SampledProblem]:
    """All of one file; a last line that is still being written is left out."""
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [_parse(line) for line in whole.splitlines()]


def _parse(line: str) -> SampledProblem:
    document = json.loads(line)
    return SampledProblem(
        problem=document["problem"],
        steps=document["steps"],
        solutions=tuple(document["solutions"]),
        shares=tuple(map(tuple, document.get("shares", ()))),
    )


class SampleFiles:
    """All `*.jsonl` of a directory, which may grow while they are used."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read_bytes: dict[Path, int] = {}
        self.problems: list[SampledProblem] = []

    def refresh(self) -> None:
        """Read what was added since the last time."""
        for path in sorted(self._directory.glob("*.jsonl")):
            start = self._read_bytes.get(path, 0)
            if path.stat().st_size <= start:
                continue
            with path.open("rb") as stream:
                stream.seek(start)
                data = stream.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read_bytes[path] = start + len(whole)
            self.problems += [_parse(line) for line in whole.decode().splitlines()]

    def choose(self, rng: Random) -> SampledProblem:
        """Any problem read so far."""
        return self.problems[rng.randrange(len(self.problems))]
