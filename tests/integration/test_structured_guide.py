# SPDX-License-Identifier: Apache-2.0
"""The programs of the guide to structured answers run as shown."""

import re
from pathlib import Path
from typing import Any

from appliance import Appliance
from tiny_appliance import TINY

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "structured-answers.md"


def test_the_programs_of_the_guide_run(tiny_appliance: Appliance) -> None:
    """One after another, as a reader would type them, against a model that knows nothing."""
    programs = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(programs) == 3
    with tiny_appliance.client() as client:
        names: dict[str, Any] = {"sdk": client.openai(), "model": TINY}
        for program in programs:
            exec(compile(program, GUIDE.name, "exec"), names)  # noqa: S102 - our own page
    assert names["weather"]["sky"] in {"clear", "cloudy"}
    assert names["result"]["degrees"] == 31
    assert names["spent"] == 0
