# SPDX-License-Identifier: Apache-2.0
"""The page that explains the checks says what the code does."""

import json
import re
from pathlib import Path

from adyton_attestation.checks import ERRORS, CheckName
from adyton_attestation.policy import RELAXABLE
from adyton_protocol.errors import AppraisalError

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "appraisal.md").read_text()
SECTIONS = re.findall(r"^### (\d+)\. `([a-z-]+)`\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_page_lists_exactly_the_checks_in_order() -> None:
    """Numbers and names on the page are those of the code, none missing and none invented."""
    listed = [(int(number), name) for number, name, _ in SECTIONS]
    assert listed == [(number, name.value) for number, name in enumerate(CheckName, start=1)]


def test_the_page_names_the_error_of_each_check() -> None:
    """A reader can catch what the page says will be raised."""
    for _, name, text in SECTIONS:
        stated = re.search(r"\*\*Error\*\* `(\w+)`", text)
        assert stated is not None, name
        assert stated[1] == ERRORS.get(CheckName(name), AppraisalError).__name__, name


def test_the_page_marks_exactly_the_relaxable_checks() -> None:
    """What the page calls relaxable is what a policy can relax."""
    assert {name for _, name, text in SECTIONS if "*Relaxable.*" in text} == {
        name.value for name in RELAXABLE
    }


def test_each_check_names_a_test_that_exists() -> None:
    """Every section points at a test function or at a vector, and says what is demanded and why."""
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    vectors = json.loads((ROOT / "tests" / "vectors" / "attestation_verdicts.json").read_text())["vectors"]
    names = {vector["name"] for vector in vectors}
    for _, name, text in SECTIONS:
        assert "**Demands**" in text, name
        assert "**Why**" in text, name
        stated = re.search(r"\*\*Test\*\* `([\w-]+)`", text)
        assert stated is not None, name
        assert stated[1] in names or f"def {stated[1]}(" in sources, stated[1]
