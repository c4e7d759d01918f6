# SPDX-License-Identifier: Apache-2.0
"""The one signal that the host may send into an enclave."""

import json
import signal
from pathlib import Path

import psutil
import pytest
from gramine_image import Image

pytestmark = [pytest.mark.gramine, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_sigterm_ends_the_enclave_in_order(image: Image, tmp_path: Path) -> None:
    """Gramine hands the one signal on; the enclave overwrites what it holds, says so and ends with status 0."""
    log = tmp_path / "enclave.log"
    with image.running(log) as process:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    happenings = [
        json.loads(line)["happening"] for line in log.read_text().splitlines() if line.startswith("{")
    ]
    assert happenings[-2:] == ["shutting-down", "stopped"]
    assert not any(child.is_running() for child in children)
