# SPDX-License-Identifier: Apache-2.0
"""`train all --budget small`: everything from nothing, in miniature, passes the checks of the real files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("llama_cpp")

from adyton_models.model_files import read_files  # noqa: E402
from adyton_models.scoring import ScorerRunner  # noqa: E402
from adyton_models.training.pipeline import (  # noqa: E402
    BUDGETS,
    GENERATOR,
    OWN_LIKELIHOOD,
    ROLLOUT_SCORER,
    SCORER,
    STUDENT,
    TAG_SCORER,
    stages,
)


def adyton_models(*arguments: str) -> str:
    """Run the command line; returns what it printed."""
    command = [sys.executable, "-m", "adyton_models.cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8", timeout=1500).stdout


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_small_budget_makes_every_file_and_they_pass_the_checks(tmp_path: Path) -> None:
    """Files load, have an identity, keep their golden vectors; accuracy is above chance; a second run does nothing."""
    out = tmp_path / "all"
    printed = adyton_models("train", "all", "--budget", "small", "--out", str(out))
    for name in (GENERATOR, SCORER, TAG_SCORER, ROLLOUT_SCORER, STUDENT):
        assert read_files(out / f"{name}.gguf")
        card = json.loads((out / f"{name}.card.json").read_text())
        assert card["size_bytes"] == (out / f"{name}.gguf").stat().st_size
        assert f"{name}.card.md" in printed
    for model, adapter in ((GENERATOR, OWN_LIKELIHOOD), (SCORER, SCORER)):
        with ScorerRunner(out / f"{model}.gguf", out / f"{adapter}.toml") as runner:
            runner.check_golden()
    measured = json.loads((out / "done" / "eval-generator.json").read_text())["printed"]
    # Answers lie between 0 and 199: guessing gives half a percent.
    assert measured["overall"]["accuracy"] > 0.02
    for label in ("own", "heldout"):
        judged = json.loads((out / "done" / f"judge-{label}.json").read_text())["printed"]
        assert judged["step_auc"]["value"] > 0.5
    marks = {path: path.stat().st_mtime_ns for path in (out / "done").iterdir()}
    assert len(marks) == len(list(stages(BUDGETS["small"], out)))
    adyton_models("train", "all", "--budget", "small", "--out", str(out), "--resume")
    assert marks == {path: path.stat().st_mtime_ns for path in (out / "done").iterdir()}
