# SPDX-License-Identifier: Apache-2.0
"""An appliance with a generator and a scorer: one appraisal covers both, and scores come through the seal."""

from pathlib import Path

import pytest
from tiny_scorers import catalog_entry, golden_adapter, make_scorer

from adyton_enclave.scoring import parse_adapter
from appliance import running
from tiny_appliance import TINY, tiny_catalog


@pytest.mark.slow
def test_an_answer_is_judged_by_an_attested_scorer(tmp_path: Path) -> None:
    """The policy names both identities; the golden vectors' scores come out of the running appliance."""
    scorer = make_scorer(tmp_path, "skywork")
    adapter = golden_adapter(scorer, tmp_path / "judge.toml")
    catalog = tiny_catalog(tmp_path)
    text = catalog.read_text().replace('role = "generator"', 'role = "generator"\nscorer = "judge"')
    catalog.write_text(text + catalog_entry(scorer, adapter))
    (golden, *_) = parse_adapter(adapter.read_bytes()).golden
    with (
        running(tmp_path, "--catalog", str(catalog)) as appliance,
        appliance.client() as client,
        client.http() as http,
    ):
        shown = {model["id"]: model for model in http.get("/v1/models").json()["data"]}
        assert (shown[TINY]["scorer"], shown["judge"]["role"]) == ("judge", "scorer")
        asked = {"model": TINY, "problem": golden.problem, "steps": list(golden.steps)}
        answer = http.post("/v1/score", json=asked).json()
        assert [step["score"] for step in answer["steps"]] == pytest.approx(golden.scores, abs=1e-5)
        assert answer["model"] == "judge"
