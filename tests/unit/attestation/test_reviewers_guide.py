# SPDX-License-Identifier: Apache-2.0
"""The reviewer's guide walks through the verifier that is there: same numbers, same names, same functions."""

import re
from pathlib import Path

import pytest

from adyton_attestation.checks import NUMBERS, CheckName

ROOT = Path(__file__).resolve().parents[3]
CODE = ROOT / "attestation" / "adyton_attestation"
GUIDE = (ROOT / "docs" / "guides" / "reviewer.md").read_text()
PAGE = (ROOT / "docs" / "appraisal.md").read_text()
STEPS = re.findall(
    r"^\| (\d+) \| \[`([a-z-]+)`\]\(\.\./appraisal\.md#([\w-]+)\) \| `(\w+\.py)` `(\w+)` \| [^|]+ \| [^|]+ \|$",
    GUIDE,
    flags=re.MULTILINE,
)


def test_the_guide_has_every_step_in_order() -> None:
    """Numbers and names are those of the code, none missing and none invented."""
    assert [(int(number), name) for number, name, *_ in STEPS] == [
        (NUMBERS[name], name.value) for name in CheckName
    ]


def test_the_steps_are_numbered_as_in_the_page_that_explains_them() -> None:
    """Each link of the guide leads to the section with the same number and name."""
    sections = re.findall(r"^### (\d+)\. `([a-z-]+)`$", PAGE, flags=re.MULTILINE)
    assert [(number, name) for number, name, *_ in STEPS] == sections
    assert all(anchor == f"{number}-{name}" for number, name, anchor, *_ in STEPS)


def test_the_groups_of_the_guide_are_those_of_the_page() -> None:
    """Headings name the first and last step below them, and are the page's own."""
    headings = re.findall(r"^### (\d+) to (\d+): (.+)$", GUIDE, flags=re.MULTILINE)
    found = []
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        numbers = re.findall(r"^### (\d+)\. ", part, flags=re.MULTILINE)
        if numbers:
            found.append((numbers[0], numbers[-1], part.splitlines()[0]))
    assert headings == found


@pytest.mark.parametrize(("name", "file", "function"), [(step[1], step[3], step[4]) for step in STEPS])
def test_the_function_named_is_the_one_that_the_step_runs(name: str, file: str, function: str) -> None:
    """The ledger runs this function under this name, and it stands in the module that the guide names."""
    member = CheckName(name).name
    sources = "\n".join(path.read_text() for path in CODE.glob("*.py"))
    run = rf"ledger\.run\(\s*CheckName\.{member},(?:\s*#[^\n]*)?\s*(?:lambda: )?(?:\w+\.)?{function}\b"
    assert re.search(run, sources) is not None
    assert f"def {function}(" in (CODE / file).read_text()
