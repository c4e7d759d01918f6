# SPDX-License-Identifier: Apache-2.0
"""Calibration: the proposed mix is as hard as asked for, keeps every bucket, and stays near the present one."""

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_gguf import make_tiny_gguf

from adyton_models.calibration import (
    LEAST_SHARE,
    bucket_accuracies,
    cells_of,
    expected_accuracy,
    propose,
)
from adyton_models.catalog import Catalog, Entry, Sampling, render_catalog, sha256_of
from adyton_models.cli import main
from adyton_models.model_files import read_files
from adyton_models.tasks import MIX, Bucket

ACCURACIES = st.lists(st.floats(0.0, 1.0), min_size=len(MIX), max_size=len(MIX)).map(
    lambda values: {bucket.name: value for bucket, value in zip(MIX, values, strict=True)}
)


@given(ACCURACIES, st.floats(0.1, 0.9))
def test_proposed_shares_are_percent_and_come_near_the_target(
    accuracies: dict[str, float], target: float
) -> None:
    """Whole percent that sum to 100, none too small; off the target only as far as the least shares force it."""
    proposed = propose(MIX, accuracies, target)
    if proposed is None:
        assert not min(accuracies.values()) < target < max(accuracies.values())
        return
    assert sum(bucket.share for bucket in proposed) == 100
    assert min(bucket.share for bucket in proposed) >= LEAST_SHARE
    assert [bucket.name for bucket in proposed] == [bucket.name for bucket in MIX]
    reachable = expected_accuracy(proposed, accuracies)
    slack = LEAST_SHARE * len(MIX) / 100 + 0.1
    assert abs(reachable - target) <= slack


@given(ACCURACIES)
def test_a_mix_that_is_right_stays_as_it_is(accuracies: dict[str, float]) -> None:
    """Asked for the accuracy it has, calibration hardly moves a share."""
    assume(min(accuracies.values()) + 0.05 < max(accuracies.values()))
    proposed = propose(MIX, accuracies, expected_accuracy(MIX, accuracies))
    assert proposed is not None
    for now, then in zip(MIX, proposed, strict=True):
        assert abs(now.share - then.share) <= 3


def test_harder_targets_shift_shares_towards_hard_buckets() -> None:
    """The lower the target, the more of the hardest bucket and the less of the easiest."""
    accuracies = {bucket.name: 0.95 - 0.1 * at for at, bucket in enumerate(MIX)}
    shares = [propose(MIX, accuracies, target) for target in (0.7, 0.5, 0.3)]
    assert all(each is not None for each in shares)
    first, last = ([each[at].share for each in shares if each] for at in (0, -1))
    assert first == sorted(first, reverse=True)
    assert last == sorted(last)


def test_a_bucket_is_as_hard_as_the_mean_of_its_cells() -> None:
    """Cells cover each kind of the mix at its numbers of operations, and a bucket takes its own kind's only."""
    buckets = (
        Bucket(name="plain 1-2", share=1, steps=(1, 2)),
        Bucket(name="plain 3", share=1, steps=(3,)),
        Bucket(name="shuffled 1-3", share=1, steps=(1, 2, 3), shuffle=True),
    )
    cells = cells_of(buckets)
    assert [cell.name for cell in cells] == [
        f"{kind} 0{n}" for kind in ("plain", "shuffled") for n in (1, 2, 3)
    ]
    measured = {cell.name: cell.steps[0] / 10 + cell.shuffle / 2 for cell in cells}
    found = bucket_accuracies(buckets, cells, measured)
    assert found == pytest.approx({"plain 1-2": 0.15, "plain 3": 0.3, "shuffled 1-3": 0.7})


def test_the_command_measures_cells_and_says_when_no_mix_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that knows nothing gets a table of zeros, no proposal, and exit status 1."""
    tiny = make_tiny_gguf(tmp_path / "tiny.gguf", ends=True).path
    content = read_files(tiny).content
    entry = Entry(
        name="tiny",
        file=tiny.name,
        sha256=sha256_of(tiny),
        content=content.digest,
        weights=content.weights,
        license="Apache-2.0",
        n_ctx=1024,
        sampling=Sampling(max_tokens=8),
    )
    catalog = Catalog(default="tiny", models=(entry,))
    (tmp_path / "catalog.toml").write_text(render_catalog(catalog))
    command = ["calibrate", "--catalog", str(tmp_path / "catalog.toml"), "--n", "1"]
    assert main([*command, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert len(document["cells"]) == len(cells_of(MIX))
    assert document["proposed"] is None
    assert document["present"]["accuracy"] == 0.0
    assert main(command) == 1
    assert "no shares of these buckets come to 50 %" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["0", "100", "-5"])
def test_a_target_that_is_no_share_is_refused_before_measuring(target: str) -> None:
    """Nobody solves none or all of a mix on purpose."""
    assert main(["calibrate", "--model", "nothing.gguf", f"--target={target}"]) == 2
