# SPDX-License-Identifier: Apache-2.0
"""Every property of the client holds for both clients; ``face`` is each in turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Outcome, Run
from memory_appliance import Face, MemoryAppliance, serving, write_simulation

from adyton.cli import main


@pytest.fixture
def memory() -> MemoryAppliance:
    """A fresh appliance in memory."""
    return MemoryAppliance()


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    """The synchronous, then the asynchronous client; not yet connected."""
    return Face(asynchronous=request.param)


@pytest.fixture
def url(memory: MemoryAppliance) -> Iterator[str]:
    """The memory appliance on a socket."""
    with serving(memory) as served:
        yield served


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process."""

    def execute(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code=code, out=captured.out, err=captured.err)

    return execute


@pytest.fixture
def where(url: str, tmp_path: Path) -> tuple[str, ...]:
    """The options that choose this simulated appliance."""
    write_simulation(tmp_path / "simulation")
    return ("--url", url, "--simulated", "--simulation-dir", str(tmp_path / "simulation"))
