# SPDX-License-Identifier: Apache-2.0
"""Start the simulated appliance for a measurement, exactly as an operator would: the suite's own way, found here.

Benchmarks are scripts; this is the one place where they look into ``tests/``.
"""

import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
"""The checkout."""

sys.path.insert(0, str(ROOT / "tests"))

from tiny_gguf import make_tiny_gguf  # noqa: E402 - as above

from appliance import Appliance, running  # noqa: E402 - found through the path above

__all__ = ["ROOT", "Appliance", "make_tiny_gguf", "running"]
