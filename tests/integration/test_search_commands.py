# SPDX-License-Identifier: Apache-2.0
"""Searches from outside: command line and SDK against the running appliance, receipts and replays included."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from adyton import SearchFile, SearchReport
from adyton.receipt_checks import failed
from adyton.replay import replay_search
from adyton_protocol.scaling_transcript import transcript_from_json
from appliance import Appliance

QUESTION = "Leo has 12 pens. Mia has 4 more pens than Leo. How many pens does Mia have?"
SEARCH = ("--strategy", "rebase-4", "--seed", "7", "--max-tokens", "80")


@pytest.fixture
def kept(appliance: Appliance, tmp_path: Path) -> Path:
    """A search file as the command line keeps it."""
    path = tmp_path / "search.json"
    appliance.adyton("ask", QUESTION, *SEARCH, "--save-transcript", str(path))
    return path


def test_a_search_is_asked_for_and_explained(appliance: Appliance) -> None:
    """The winner stands on standard output; votes, judged steps, tree and cost on standard error."""
    done = appliance.adyton("ask", QUESTION, *SEARCH, "--explain")
    assert "The answer is" in done.stdout
    for part in (
        "search: rebase 4",
        "spent: ",
        "vote of",
        "judges all up to each",
        "tree of steps",
        "receipt: valid",
    ):
        assert part in done.stderr
    assert "16" in done.stdout.splitlines()[-1]


def test_auto_answers_and_its_steps_are_judged(appliance: Appliance) -> None:
    """Whatever auto chooses, the answer has votes, and a scorer's verdict on each of its steps."""
    done = appliance.adyton("ask", QUESTION, "--explain", "--seed", "7", "--json")
    document = json.loads(done.stdout)
    report = SearchReport.parse(document["search"])
    assert report.asked == "auto"
    assert report.strategy != "auto"
    assert report.votes
    lines = [line for line in document["answer"].splitlines() if line.strip()]
    steps = report.winner.steps or document["judgement"]["steps"]
    assert len(steps) == len(lines)


def test_streamed_and_whole_the_winner_is_the_same(appliance: Appliance) -> None:
    """With a seed a search is repeatable; progress events and other candidates are no part of the answer."""
    streamed = appliance.adyton("ask", QUESTION, *SEARCH, "--explain").stdout
    whole = json.loads(appliance.adyton("ask", QUESTION, *SEARCH, "--json").stdout)
    assert streamed == whole["answer"] + "\n"
    assert whole["search"]["spent"]["policy_tokens"] == whole["usage"]["completion_tokens"]


def test_a_kept_search_is_replayed_without_the_appliance(appliance: Appliance, kept: Path) -> None:
    """Receipt, transcript and choice are checked from the file alone; every check passes."""
    offline = ("--simulated", "--simulation-dir", str(appliance.simulation_dir))
    done = appliance.offline("receipt", "replay", str(kept), "--json", *offline)
    document = json.loads(done.stdout)
    assert {check["verdict"] for check in document["checks"]} == {"pass"}
    assert document["verdict"] == "same choice"
    assert document["appraised"] is True


@pytest.mark.parametrize("part", ["text", "score", "vote", "winner"])
def test_a_search_that_was_tampered_with_fails_by_name(appliance: Appliance, kept: Path, part: str) -> None:
    """One changed candidate, score, vote or winner: exit code 1, and the check that says which."""
    document: Any = json.loads(kept.read_text())
    transcript = document["transcript"]
    match part:
        case "text":
            transcript["candidates"][-1]["text"] += "0"
        case "score":
            score = transcript["candidates"][0]["scores"][0]
            transcript["candidates"][0]["scores"][0] = score / 2
        case "vote":
            transcript["votes"][0]["weight"] /= 2
        case _:
            chosen = transcript["winners"][0]
            transcript["winners"][0] = (chosen + 1) % len(transcript["candidates"])
    kept.write_text(json.dumps(document))
    offline = ("--simulated", "--simulation-dir", str(appliance.simulation_dir))
    done = appliance.offline("receipt", "replay", str(kept), *offline, check=False)
    assert done.returncode == 1
    named = {"text": "candidates", "score": "candidates", "vote": "votes", "winner": "selection"}[part]
    assert named in done.stdout.splitlines()[-1]


def test_the_sdk_searches_unchanged(appliance: Appliance) -> None:
    """The unmodified SDK asks by a field or by the model's name; the report is typed, the file replays."""
    with appliance.client() as client:
        create: Any = client.openai().chat.completions.create
        messages = [{"role": "user", "content": QUESTION}]
        scaling = {"strategy": "rebase", "n": 4, "return": "all"}
        answer = create(
            model="default", messages=messages, seed=7, max_tokens=80, extra_body={"scaling": scaling}
        )
        record = client.last_receipt
        report = SearchReport.of(answer)
        assert report is not None
        assert report.transcript is not None
        assert record is not None
        kept = transcript_from_json(report.transcript)
        assert [choice.message.content for choice in answer.choices] == [
            kept.candidates[index].text for index in report.choices
        ]
        assert report.spent.policy_tokens == answer.usage.completion_tokens
        file = SearchFile.parse(json.dumps(SearchFile.of(record, report).to_json()).encode())
        assert not failed(replay_search(file, appliance.simulation().verifier()))
        named = create(model="default@rebase-4", messages=messages, seed=7, max_tokens=80)
        assert named.choices[0].message.content == answer.choices[0].message.content
        plain = create(model="default", messages=messages, max_tokens=80)
        assert SearchReport.of(plain) is None
        reports = [
            SearchReport.of(chunk)
            for chunk in create(
                model="default@majority-4", messages=messages, seed=7, max_tokens=80, stream=True
            )
        ]
        (found,) = [report for report in reports if report is not None]
        assert found.strategy == "majority"


def test_the_guides_programs_run(appliance: Appliance, tmp_path: Path) -> None:
    """What the developer's guide shows under "Better answers" does what it says."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "developer.md").read_text()
    section = page.partition("\n## Better answers\n")[2].partition("\n## ")[0]
    ask, padded, keep = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    with appliance.client() as client:
        names: dict[str, Any] = {
            "client": client,
            "messages": [{"role": "user", "content": QUESTION}],
            "json": json,
            "path": tmp_path / "search.json",
        }
        exec(ask.replace('"n": 16', '"n": 4, "return": "all"'), names)  # noqa: S102 - our own page.
        exec(keep, names)  # noqa: S102
        exec(padded, names)  # noqa: S102
        assert not failed(replay_search(SearchFile.parse(names["path"].read_bytes()), None))
        create: Any = client.openai().chat.completions.create
        scaling = names["scaling"] | {"n": 2, "budget": {"policy_tokens": 200}}
        answer = create(model="default", messages=names["messages"], extra_body={"scaling": scaling})
        assert answer.usage.completion_tokens == 200
