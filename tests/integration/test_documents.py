# SPDX-License-Identifier: Apache-2.0
"""What the README and the examples show works as shown."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from adyton.cli import make_parser
from adyton_models.tasks.render import generate
from adyton_models.tasks.splits import Split
from appliance import Appliance

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Fenced blocks of the README in one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_program_of_the_readme_runs(appliance: Appliance) -> None:
    """The Python program streams an answer and prints its receipt."""
    (program,) = blocks("python")
    program = program.replace("http://127.0.0.1:8470", appliance.url)
    program = program.replace("from_dir()", f"from_dir({str(appliance.simulation_dir)!r})")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "The answer is" in done.stdout
    assert "event_log" in done.stdout


def adyton_commands() -> list[str]:
    """Every ``adyton`` command line that the README shows."""
    lines = [line.partition("#")[0].strip() for block in blocks("console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ adyton ")]


@pytest.mark.parametrize("command", adyton_commands())
def test_the_commands_of_the_readme_parse(command: str) -> None:
    """Every option that the README shows exists."""
    make_parser().parse_args(shlex.split(command)[1:])


def test_every_make_target_of_the_readme_exists() -> None:
    """No document names a target that the Makefile does not have."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]
    named = {name for page in pages for name in re.findall(r"`make ([a-z-]+)", page.read_text())}
    named |= set(re.findall(r"^\$ make ([a-z-]+)", README, flags=re.MULTILINE))
    assert named <= targets


def test_every_link_between_documents_leads_somewhere() -> None:
    """Relative links in Markdown files point at files that exist."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    broken = [
        f"{name}: {target}"
        for name in listed
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text())
        if "://" not in target and not (ROOT / name).parent.joinpath(target).exists()
    ]
    assert broken == []


def test_the_question_of_the_demo_is_held_out() -> None:
    """The demo's question belongs to the test split, so nothing of its template and graph was trained on."""
    shown = json.loads((ROOT / "docs" / "examples" / "demo_problem.json").read_text())
    drawn = {problem.text: problem for problem in generate(Split.TEST, 5, 12, (3,))}
    assert drawn[shown["question"]].split is Split.TEST
    assert drawn[shown["question"]].answer == shown["answer"]


def test_curl_is_refused_with_an_explanation(appliance: Appliance) -> None:
    """The plaintext call of the README gets a problem document that says what to do."""
    answer = httpx.post(f"{appliance.url}/v1/chat/completions", content=b"{}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert "adyton" in answer.json()["detail"]


def test_the_sdk_example_runs(appliance: Appliance) -> None:
    """docs/examples/openai_sdk.py is a complete program."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "examples" / "openai_sdk.py"), "--url", appliance.url,
         "--simulated", "--simulation-dir", str(appliance.simulation_dir)],
        capture_output=True, text=True, check=False, timeout=60, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
