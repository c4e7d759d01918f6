# SPDX-License-Identifier: Apache-2.0
"""`eval --strategies` and `calibrate --scaling`: what they print and write, and what they refuse."""

import json
import shutil
from pathlib import Path

import pytest

from adyton_enclave.scaling.auto import choose
from adyton_enclave.scaling.calibration import calibration_for
from adyton_enclave.scaling.plan import Plan
from adyton_enclave.scoring import parse_adapter
from adyton_models.catalog import default_catalog, read_catalog, sha256_of
from adyton_models.cli import main
from adyton_protocol.digests import Digest
from adyton_protocol.selection.candidate import SelectionRule

SHIPPED = default_catalog().parent / "shipped"
GENERATOR = str(SHIPPED / "adyton-words-3m.gguf")


@pytest.mark.slow
def test_searches_are_measured_side_by_side(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One row for each, costs that grow with the width, and the same figures again with the same seed."""
    arguments = [
        "eval",
        "--strategies",
        "majority-2,majority-4,rebase-2",
        "--n",
        "2",
        "--steps",
        "1-2",
        "--json",
    ]
    picture = tmp_path / "searches.png"
    assert main([*arguments, "--plot", str(picture)]) == 0
    document = json.loads(capsys.readouterr().out)
    narrow, wide, tree = document["searches"]
    assert [row["search"] for row in document["searches"]] == ["majority-2", "majority-4", "rebase-2"]
    assert narrow["policy_tokens"] < wide["policy_tokens"]
    assert narrow["scorer_tokens"] == 0 < tree["scorer_tokens"]
    assert picture.stat().st_size > 1000
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == document


@pytest.mark.slow
def test_calibrating_writes_what_auto_goes_by(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The adapter has the points, the catalog expects it, and the golden vectors are as they were."""
    catalog = tmp_path / "catalog.toml"
    shutil.copy(default_catalog(), catalog)
    (tmp_path / "shipped").mkdir()
    listed = read_catalog(catalog)
    scorer = listed.entry(listed.entry(None).scorer)
    for name in {listed.entry(None).file, scorer.file, scorer.adapter}:
        shutil.copy(default_catalog().parent / name, tmp_path / name)
    command = [
        "calibrate",
        "--scaling",
        "--catalog",
        str(catalog),
        "--n",
        "2",
        "--searches",
        "majority-2,rebase-2",
    ]
    before = parse_adapter((tmp_path / scorer.adapter).read_bytes())
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["catalog_entry_updated"] == scorer.name
    entry = read_catalog(catalog).entry(scorer.name)
    assert entry.adapter_digest == f"sha256:{sha256_of(tmp_path / scorer.adapter)}" != scorer.adapter_digest
    adapter = parse_adapter((tmp_path / scorer.adapter).read_bytes())
    assert adapter.golden == before.golden
    found = calibration_for(adapter.scaling, Digest(listed.entry(None).content))
    assert found is not None
    assert [(point.strategy, point.n) for point in found.points] == [("majority", 2), ("rebase", 2)]
    chosen = choose(Plan(strategy="auto", n=2, rule=SelectionRule(method="majority")), found, scores=True)
    assert document["auto"]["auto-4"].startswith(chosen.strategy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--strategies", "vote-3"], "is no search"),
        (["eval", "--strategies", "weighted-4", "--model", GENERATOR], "needs a scorer"),
        (["eval", "--strategies", "majority-4", "--scorer", GENERATOR], "needs --adapter"),
        (["calibrate", "--scaling", "--searches", "rebase-2"], "needs a majority vote"),
        (["calibrate", "--scaling", "--model", GENERATOR], "there is no scorer"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_what_to_do(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is loaded."""
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
