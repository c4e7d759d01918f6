# SPDX-License-Identifier: Apache-2.0
"""Searches on the command line: asked for, explained, kept, and replayed by somebody else."""

import copy
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from memory_appliance import QUESTION, Face, MemoryAppliance, policy, simulation
from scaling_examples import transcript
from search_answers import report_of

from adyton import SearchFile, SearchReport
from adyton.commands.search_options import STRATEGIES_HELP, answer_rule, named_strategy
from adyton.receipt_checks import failed
from adyton.replay import replay_search
from adyton_attestation.simulation import SimulatedVerifier
from adyton_enclave.scaling.plan import STRATEGIES
from adyton_protocol.answers import AnswerRule
from adyton_protocol.errors import ConfigError, RemoteProtocolError
from adyton_protocol.scaling_transcript import transcript_from_json
from adyton_protocol.selection.candidate import SelectionRule

SEARCH = transcript(candidates=transcript().candidates[:8], rule=SelectionRule(method="weighted"))
TWO_ANSWERS = transcript(candidates=SEARCH.candidates, rule=SelectionRule(method="weighted", k=2))
SEARCHING = {"model": "tiny", "messages": [], "scaling": {"strategy": "rebase", "return": "all"}}
WINNER = SEARCH.candidates[SEARCH.selection.winners[0]].text


@pytest.fixture
def memory() -> MemoryAppliance:
    """An appliance that searches when it is asked to."""
    return MemoryAppliance(search=SEARCH)


@pytest.fixture
def kept(run: Run, where: tuple[str, ...], tmp_path: Path) -> Path:
    """A search file as the command line keeps it."""
    path = tmp_path / "search.json"
    assert run("ask", QUESTION, *where, "--strategy", "rebase-12", "--save-transcript", path).code == 0
    return path


def asked(memory: MemoryAppliance) -> Any:
    """The member ``scaling`` of the last request."""
    return json.loads(memory.inner[-1].content).get("scaling")


def test_an_explained_search_shows_vote_steps_and_tree(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance
) -> None:
    """The answer alone stands on standard output, all about the search on standard error."""
    outcome = run("ask", QUESTION, *where, "--strategy", "rebase-12", "--explain")
    assert outcome.code == 0
    assert asked(memory) == {"strategy": "rebase", "n": 12, "return": "all"}
    assert outcome.out == WINNER + "\n"
    for part in ("search: rebase 12", "spent: ", "confidence: ", "vote of 8 candidates", "judges all up to each",
                 "tree of steps", "receipt: valid"):  # fmt: skip
        assert part in outcome.err
    assert "searching" not in outcome.err, "progress is for terminals"


UNSCORED = transcript(
    strategy="majority",
    scorer=None,
    rule=SelectionRule(method="majority"),
    candidates=tuple(replace(candidate, scores=()) for candidate in SEARCH.candidates),
)
SCORES: dict[str, Any] = {
    "object": "score",
    "model": "prm",
    "steps": [
        {"index": 0, "text": "2 + 3 = 5", "score": 0.93, "sound": True},
        {"index": 1, "text": "The answer is: 5", "score": 0.12, "sound": False},
    ],
}


def test_an_answer_that_nobody_scored_is_judged_when_it_is_explained(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance
) -> None:
    """The scorer is asked afterwards, in an exchange of its own; the receipt that counts is the answer's."""
    memory.search, memory.scores = UNSCORED, SCORES
    outcome = run("ask", QUESTION, *where, "--strategy", "majority-12", "--explain", "--model", "tiny")
    assert outcome.code == 0
    assert [request.path for request in memory.inner] == ["/v1/chat/completions", "/v1/score"]
    judged = json.loads(memory.inner[-1].content)
    assert judged == {"model": "tiny", "problem": QUESTION, "steps": outcome.out.rstrip("\n")}
    assert "0.93 sound     2 + 3 = 5" in outcome.err
    assert "0.12 doubtful  The answer is: 5" in outcome.err
    assert "it had no part" in outcome.err
    document = json.loads(run("ask", QUESTION, *where, "--strategy", "majority", "--explain", "--json").out)
    assert document["judgement"] == SCORES
    assert "event_log" in document["receipt"]
    assert any(event["type"] == "scaling.run" for event in document["receipt"]["event_log"])


def test_without_a_scorer_there_is_no_verdict(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance
) -> None:
    """A model that nobody judges answers all the same; scores of another form are an error."""
    memory.search = UNSCORED
    outcome = run("ask", QUESTION, *where, "--strategy", "majority", "--explain")
    assert outcome.code == 0
    assert "judges" not in outcome.err
    memory.scores = {"model": "prm", "steps": [{"text": "x", "score": 2.0, "sound": True}]}
    assert run("ask", QUESTION, *where, "--strategy", "majority", "--explain").code == 3


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ((), None),
        (("--explain",), {"strategy": "auto", "return": "all"}),
        (("--strategy", "auto"), {"strategy": "auto"}),
        (("--strategy", "best-of-4", "--n", "4"), {"strategy": "best-of-n", "n": 4}),
        (("--n", "4"), {"strategy": "auto", "n": 4}),
        (
            ("--strategy", "majority", "--budget-tokens", "900", "--pad-to-budget", "--stop", "beta"),
            {
                "strategy": "majority",
                "budget": {"policy_tokens": 900},
                "stop": {"kind": "beta"},
                "pad_to_budget": True,
            },
        ),
        (
            ("--strategy", "bom-8", "--k", "2", "--aggregate", "min", "--answer", "boxed,number",
             "--budget-ms", "50", "--budget-flops", "1e12", "--no-stream"),
            {
                "strategy": "bom", "n": 8, "k": 2, "aggregate": "min",
                "answer": {"extract": "boxed", "equivalence": "number"},
                "budget": {"ms": 50, "total_flops": 1e12},
            },
        ),
        (("--strategy", "mcts-4", "--experimental"), {"strategy": "mcts", "n": 4, "experimental": True}),
    ],
)  # fmt: skip
def test_what_is_asked_is_what_is_sent(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, options: tuple[str, ...], wanted: object
) -> None:
    """Each option is a member of the request, and nothing is asked that nobody wanted."""
    assert run("ask", QUESTION, *where, *options).code == 0
    assert asked(memory) == wanted


@pytest.mark.parametrize(
    "options",
    [
        ("--strategy", "Rebase 16"),
        ("--strategy", "rebase-16", "--n", "8"),
        ("--strategy", "majority", "--answer", "boxed,whole"),
        ("--strategy", "majority", "--answer", "field"),
        ("--strategy", "majority", "--answer", "somewhere"),
    ],
)
def test_options_that_say_nothing_clear_are_unusable(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, options: tuple[str, ...]
) -> None:
    """Malformed or contradicting options exit with 2; no question is sent."""
    assert run("ask", QUESTION, *where, *options).code == 2
    assert memory.inner == []


def test_names_of_strategies_and_rules() -> None:
    """A number behind a name is the width, also where names have dashes."""
    assert named_strategy("rebase-16") == {"strategy": "rebase", "n": 16}
    assert named_strategy("best-of-n") == {"strategy": "best-of-n"}
    assert named_strategy("best-of-n-16") == {"strategy": "best-of-n", "n": 16}
    assert named_strategy("best-of-16") == {"strategy": "best-of-n", "n": 16}
    assert named_strategy("auto") == {"strategy": "auto"}
    assert answer_rule("field:/a/0") == AnswerRule(extract="field", field="/a/0")
    assert answer_rule("choice") == AnswerRule(equivalence="choice")


def test_a_strategy_in_the_models_name_is_not_contradicted(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance
) -> None:
    """With ``name@rebase-8`` only what is further wanted is said."""
    run("ask", QUESTION, *where, "--model", "tiny@rebase-8", "--explain")
    assert asked(memory) == {"return": "all"}


def test_help_and_page_name_every_strategy() -> None:
    """What the enclave can do is what the command line and the documentation teach."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "search.md").read_text()
    for strategy in STRATEGIES:
        assert re.search(rf"^  (beam, )?{strategy}\b", STRATEGIES_HELP, flags=re.MULTILINE), strategy
        assert f"\n| `{strategy}` |" in page


@pytest.mark.parametrize("stream", [("--stream",), ("--no-stream",), ("--json",)])
def test_json_has_the_whole_report(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, stream: tuple[str, ...]
) -> None:
    """The machine-readable twin has what the enclave said, word for word; the text is the winner's in any form."""
    outcome = run("ask", QUESTION, *where, "--strategy", "rebase", *stream)
    assert outcome.code == 0
    if "--json" in stream:
        document = json.loads(outcome.out)
        assert document["answer"] == WINNER
        assert document["search"] == report_of(SEARCH, whole=False)
    else:
        assert outcome.out == WINNER + "\n"
    assert asked(memory) == {"strategy": "rebase"}


def test_a_kept_search_is_replayed_offline(
    run: Run, where: tuple[str, ...], kept: Path, memory: MemoryAppliance
) -> None:
    """Every check passes, nothing is asked of the appliance, and no keys but those needed are disclosed."""
    memory.sent.clear()
    outcome = run("receipt", "replay", kept, *where[2:])
    assert outcome.code == 0
    assert "replay: the same choice (SIMULATED evidence)" in outcome.out
    document = json.loads(run("receipt", "replay", kept, "--json", *where[2:]).out)
    assert document["verdict"] == "same choice"
    assert document["appraised"] is True
    assert [check["name"] for check in document["checks"]] == [
        "report", "binding", "signature", "model", "time",
        "transcript", "search", "candidates", "votes", "selection", "choice", "question", "answer",
    ]  # fmt: skip
    assert {check["verdict"] for check in document["checks"]} == {"pass"}
    assert sorted(json.loads(kept.read_text())["openings"]) == [
        "request.body", "response.body", "scaling.run.candidates", "scaling.run.selection", "scaling.run.votes",
    ]  # fmt: skip
    bare = run("receipt", "replay", kept)
    assert bare.code == 0
    assert "they were not appraised" in bare.out
    assert memory.sent == []


def test_a_policy_for_real_appliances_refuses_a_simulated_search(
    run: Run, kept: Path, tmp_path: Path
) -> None:
    """Simulated evidence stays simulated in a replay."""
    path = tmp_path / "policy.toml"
    path.write_text(policy().to_toml())
    outcome = run("receipt", "replay", kept, "--policy", path)
    assert outcome.code == 1
    assert "REFUSED by report" in outcome.out


Edit = Callable[[Any], None]


def text_of_a_candidate(file: Any) -> None:
    """Other words."""
    file["transcript"]["candidates"][1]["text"] += " "


def score_of_a_candidate(file: Any) -> None:
    """Another score."""
    file["transcript"]["candidates"][1]["scores"][0] = 0.7500000000000001


def weight_of_a_vote(file: Any) -> None:
    """Another weight, in the last place."""
    file["transcript"]["votes"][-1]["weight"] += 1e-9


def another_winner(file: Any) -> None:
    """The other answer."""
    file["transcript"]["winners"] = [1]


def another_rule(file: Any) -> None:
    """Another rule than the one that was signed."""
    file["transcript"]["rule"]["method"] = "majority"


def a_candidate_less(file: Any) -> None:
    """A candidate that somebody would rather not show."""
    file["transcript"]["candidates"].pop()
    file["transcript"]["abstained"] = [index for index in file["transcript"]["abstained"] if index < 7]
    for vote in file["transcript"]["votes"]:
        vote["members"] = [index for index in vote["members"] if index < 7]


def another_width(file: Any) -> None:
    """A search that was wider."""
    file["transcript"]["n"] += 1


def another_question(file: Any) -> None:
    """A question that was not asked."""
    file["request"] = file["request"].replace("canary", "canine")


def another_answer(file: Any) -> None:
    """An answer that was not given."""
    file["response"] = file["response"].replace("The answer is", "The answer was")


def no_key(file: Any) -> None:
    """A key that is withheld."""
    del file["openings"]["scaling.run.votes"]


def a_foreign_key(file: Any) -> None:
    """A key of another label."""
    file["openings"]["scaling.run.votes"] = file["openings"]["scaling.run.candidates"]


def another_signature(file: Any) -> None:
    """A receipt that nobody signed."""
    file["receipt"]["model"] = "huge"


def no_transcript(file: Any) -> None:
    """Not a transcript at all."""
    file["transcript"] = {"version": 2}


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (text_of_a_candidate, "candidates"),
        (score_of_a_candidate, "candidates, choice"),
        (weight_of_a_vote, "votes, choice"),
        (another_winner, "selection, choice, answer"),
        (another_rule, "selection, choice"),
        (a_candidate_less, "search, choice"),
        (another_width, "search"),
        (another_question, "question"),
        (another_answer, "answer"),
        (no_key, "votes"),
        (a_foreign_key, "votes"),
        (another_signature, "signature"),
        (no_transcript, "transcript"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_edit_of_a_kept_search_is_named(
    run: Run, where: tuple[str, ...], kept: Path, edit: Edit, named: str
) -> None:
    """Texts, scores, votes, winner, question and answer are held to the receipt, each by a check of its own."""
    document = json.loads(kept.read_text())
    edit(document)
    kept.write_text(json.dumps(document))
    outcome = run("receipt", "replay", kept, *where[2:])
    assert outcome.code == 1
    assert outcome.out.rstrip().endswith(f"replay: REFUSED by {named}")


def test_a_choice_that_does_not_follow_is_refused_though_it_was_signed(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, tmp_path: Path
) -> None:
    """An enclave that commits to its candidates and then gives a favourite is found out, at once and by the auditor."""
    memory.search = replace(SEARCH, selection=replace(SEARCH.selection, winners=(4,)))
    outcome = run("ask", QUESTION, *where, "--strategy", "rebase-12", "--explain")
    assert outcome.code == 1
    assert "the choice made again differs in winners" in outcome.err
    face = Face(asynchronous=False).connect(memory)
    report = SearchReport.of(json.loads(face.send("POST", "/v1/chat/completions", SEARCHING).body))
    assert face.client is not None
    assert face.client.last_receipt is not None
    path = tmp_path / "search.json"
    path.write_text(json.dumps(SearchFile.of(face.client.last_receipt, report).to_json()))
    audited = run("receipt", "replay", path, *where[2:])
    assert audited.code == 1
    assert audited.out.rstrip().endswith("REFUSED by choice")
    assert "differs in: winners" in audited.out


def test_several_answers_are_asked_for_and_shown(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance
) -> None:
    """With --k the different answers stand below each other, best first, whether all candidates came back or not."""
    memory.search = TWO_ANSWERS
    wanted = [SEARCH.candidates[index].text for index in TWO_ANSWERS.selection.winners]
    assert len(wanted) == 2
    for extra in ((), ("--explain",), ("--no-stream",)):
        outcome = run("ask", QUESTION, *where, "--strategy", "rebase-12", "--k", "2", *extra)
        assert outcome.out == "\n\n".join(wanted) + "\n"
    document = json.loads(run("ask", QUESTION, *where, "--strategy", "rebase", "--k", "2", "--json").out)
    assert document["answers"] == wanted


def test_a_winner_that_was_not_returned_is_refused(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, tmp_path: Path
) -> None:
    """The choice is right and signed, and the answer is another candidate's."""
    path = tmp_path / "search.json"
    memory.search_report = report_of(SEARCH)
    memory.search = SEARCH
    memory.returned = SEARCH.candidates[2].text
    assert (
        run("ask", QUESTION, *where, "--strategy", "rebase-12", "--no-stream", "--save-transcript", path).code
        == 0
    )
    outcome = run("receipt", "replay", path, *where[2:])
    assert outcome.code == 1
    assert "REFUSED by answer" in outcome.out


def test_a_chat_searches_when_it_is_told_to(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/strategy holds until it is taken back; what is no strategy changes nothing."""
    lines = "one\n/strategy rebase-4\ntwo\n/strategy ???\nthree\n/strategy off\nfour\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    outcome = run("chat", *where)
    assert outcome.code == 0
    searched: list[Any] = [json.loads(request.content).get("scaling") for request in memory.inner]
    wanted = {"strategy": "rebase", "n": 4}
    assert searched == [None, wanted, wanted, None]
    assert outcome.err.count("spent: ") == 2
    assert "a strategy is a name" in outcome.err


def test_without_a_transcript_there_is_nothing_to_keep(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, tmp_path: Path
) -> None:
    """A report that lacks it is said so, and no file is left that would not replay."""
    memory.search_report = report_of(SEARCH, whole=False)
    path = tmp_path / "search.json"
    assert run("ask", QUESTION, *where, "--strategy", "rebase-12", "--save-transcript", path).code == 2
    assert not path.exists()


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"transcript": {}, "other": 1}', b'{"transcript": {}, "receipt": {}, "openings": {"a": "x"}}',
     b'{"transcript": {}, "receipt": {}, "openings": {}, "evidence": {"report": 1}}',
     b'{"transcript": {}, "receipt": {}, "openings": {}, "evidence": {}, "request": 1}', b"\xff"],
)  # fmt: skip
def test_what_is_no_search_file_is_unusable(run: Run, tmp_path: Path, data: bytes) -> None:
    """A file of another kind is the caller's mistake, exit code 2, and no verdict."""
    path = tmp_path / "search.json"
    path.write_bytes(data)
    assert run("receipt", "replay", path).code == 2
    with pytest.raises(ConfigError):
        SearchFile.parse(data)


def test_the_python_interface_does_the_same(face: Face, memory: MemoryAppliance) -> None:
    """A record and a report make the file, with either client; a replay is a function of file and policy."""
    face.connect(memory)
    got = face.send("POST", "/v1/chat/completions", SEARCHING)
    assert face.client is not None
    record = face.client.last_receipt
    assert record is not None
    report = SearchReport.of(json.loads(got.body))
    assert report is not None
    assert [vote.answer for vote in report.votes] == [vote.shown for vote in SEARCH.selection.votes]
    assert report.confidence.problems == 500
    with pytest.raises(ConfigError):
        SearchFile.of(record, report, response=b"\xff")
    file = SearchFile.of(record, report)
    again = SearchFile.parse(json.dumps(file.to_json()).encode())
    checks = replay_search(again, SimulatedVerifier(policy(), simulation().root_der))
    assert not failed(checks)
    assert [check.name for check in checks if check.verdict == "skip"] == ["question", "answer"]
    assert SearchReport.of({"choices": []}) is None
    assert SearchReport.of(object()) is None


@pytest.mark.parametrize("member", sorted(report_of(SEARCH, whole=False)))
def test_a_report_of_another_form_is_a_typed_error(member: str) -> None:
    """What the enclave says is parsed like anything else; members that nobody needs may be anything."""
    unread = {"aggregate", "budget"}
    for value in (None, {"deep": "\x1b[2J"}, -1, "\x1b" * 300, [[]], float("nan")):
        report = copy.deepcopy(report_of(SEARCH, whole=False)) | {member: value}
        if (member in unread and value == value) or (member == "scorer" and value is None):  # noqa: PLR0124 - NaN
            SearchReport.parse(report)
        else:
            with pytest.raises(RemoteProtocolError) as caught:
                SearchReport.parse(report)
            assert "\x1b" not in str(caught.value)


def test_reports_keep_their_words_to_themselves() -> None:
    """Neither answers nor candidates stand in a repr, which ends up in logs."""
    words = "The answer is: canary-19"
    search = transcript(candidates=(replace(SEARCH.candidates[0], text=words),))
    assert "canary" in str(report_of(search))
    assert "canary" not in repr(SearchReport.parse(report_of(search)))


def test_a_transcript_survives_the_answer_bit_for_bit() -> None:
    """What comes out of the JSON of an answer is the transcript that went in."""
    report = SearchReport.parse(json.loads(json.dumps(report_of(SEARCH))))
    assert report.transcript is not None
    assert transcript_from_json(report.transcript) == SEARCH
