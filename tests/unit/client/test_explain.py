# SPDX-License-Identifier: Apache-2.0
"""A search as text: complete, bounded, and in columns that no candidate reaches."""

import io
import sys
from dataclasses import replace
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from search_answers import report_of

from adyton.explain import (
    MAX_TREE_LINES,
    MAX_VOTES,
    flops,
    progress_line,
    scored_steps,
    search_lines,
    step_lines,
    tree_lines,
    vote_lines,
    winner_steps,
)
from adyton.search_report import ScoredStep, SearchReport
from adyton.terminal import ProgressLine, one_line
from adyton_protocol.scaling_transcript import Transcript
from adyton_protocol.selection.bounds import Budget, StopRule
from adyton_protocol.selection.candidate import Candidate, Selection, SelectionRule, Vote

HOSTILE = "9\x1b[2J\r\n* 99 ######## 64 candidates 9\n\u202e\u2028\u0085=>  9\tA\u0301\u0336\u0336"


def candidate(text: str, *scores: float, complete: bool = True) -> Candidate:
    """One that was generated."""
    return Candidate(text=text, n_tokens=5, logprob=-1.0, scores=scores, complete=complete)


def vote(shown: str, weight: float, *members: int) -> Vote:
    """A class of answers."""
    return Vote(key=shown, shown=shown, members=members, weight=weight)


CANDIDATES = (
    candidate("A = 3\nB = 4\nThe answer is: 7", 0.99, 0.98, 0.97),
    candidate("A = 3\nB = 5\nThe answer is: 8", 0.99, 0.4, 0.3),
    candidate("A = 3\nB = 5\nC =", 0.99, 0.4, complete=False),
    candidate("A = 3\nB = 4\nThe answer is: 7", 0.99, 0.98, 0.97),
    candidate("A = 2\nno idea", 0.2, 0.1),
)
SELECTION = Selection(winners=(0,), votes=(vote("7", 1.9, 0, 3), vote("8", 0.3, 1)), abstained=(2, 4))


def reported(candidates: tuple[Candidate, ...], selection: Selection, **changes: Any) -> SearchReport:
    """The report of a search with these candidates and this choice."""
    members: dict[str, Any] = {
        "strategy": "rebase",
        "n": len(candidates),
        "scorer": "prm",
        "rule": SelectionRule(method="weighted"),
        "budget": Budget(),
        "stop": StopRule(),
        "stop_reason": "complete",
        "candidates": candidates,
        "selection": selection,
    } | changes
    return SearchReport.parse(report_of(Transcript(**members)))


def test_a_search_is_summed_up() -> None:
    """Strategy, effort of both models, and what the confidence is, in a line each."""
    lines = list(search_lines(reported(CANDIDATES, SELECTION)))
    assert lines == [
        "search: rebase 5 (auto chose it), 5 candidates, all there",
        "spent: 25 tokens generated, 300 scored; 1.5 GFLOP of the generator and 250 MFLOP of the scorer; 1.23 s",
        "confidence: 86% is the answer's share of the vote; settled with 98%",
        "measured: searches like this were right on 91% of 500 problems",
    ]
    early = reported(CANDIDATES, SELECTION, stop_reason="agreed", scorer=None)
    assert "ended early: the vote was decided" in next(search_lines(early))
    assert "scored" not in list(search_lines(early))[1]


def test_every_step_of_the_answer_has_its_verdict() -> None:
    """Score and verdict stand before the step; steps that are not lines are numbered; many of them are bounded."""
    report = reported(CANDIDATES, replace(SELECTION, winners=(1,)))
    assert list(step_lines("prm", winner_steps(report, CANDIDATES[1].text))) == [
        "steps of the answer, as prm judges all up to each:",
        "  0.99 sound     A = 3",
        "  0.40 doubtful  B = 5",
        "  0.30 doubtful  The answer is: 8",
    ]
    assert [text for text, _ in winner_steps(report, "one line")] == ["step 1", "step 2", "step 3"]
    long = [("x", ScoredStep(score=0.5, sound=True))] * 1000
    assert len(list(step_lines("prm", long))) == MAX_TREE_LINES + 2


def test_progress_of_any_shape_is_a_line() -> None:
    """Numbers are shown, anything else counts as nothing."""
    assert progress_line({"ended": 3, "alive": 5, "policy_tokens": 1204}) == (
        "searching: 3 ended, 5 under way, 1,204 tokens"
    )
    assert progress_line({"ended": "\x1b[2J", "alive": None}) == "searching: 0 ended, 0 under way, 0 tokens"


def test_the_votes_are_bars_in_proportion() -> None:
    """The chosen class is marked, weights and numbers of candidates stand beside the bars."""
    head, first, second, rest = vote_lines(reported(CANDIDATES, SELECTION))
    assert "5 candidates" in head
    assert first.startswith("*")
    assert first.endswith(" 2 candidates    7")
    assert not second.startswith("*")
    assert first.count("#") == 28
    assert second.count("#") == round(28 * 0.3 / 1.9)
    assert "2 candidates without an answer" in rest


def test_the_tree_has_every_shared_step_once() -> None:
    """Common steps stand once, the winner's path first and marked, cut-off candidates are given up."""
    assert list(tree_lines(CANDIDATES, SELECTION))[1:] == [
        "* |- 0.99  A = 3",
        "* |  |- 0.98  B = 4",
        "* |  |  0.97  The answer is: 7",
        "* |  |    =>  7 (2 times)",
        "  |  `- 0.40  B = 5",
        "  |     |- 0.30  The answer is: 8",
        "  |     |    =>  8",
        "  |     `-    -  C =",
        "  |          =>  given up",
        "  `- 0.20  A = 2",
        "     0.10  no idea",
        "       =>  no answer",
    ]


def test_a_tree_without_scores_says_nothing_of_scores() -> None:
    """Where nobody scored, a dash stands in the column that candidates do not reach."""
    bare = tuple(replace(each, scores=()) for each in CANDIDATES)
    head, first, *_ = tree_lines(bare, SELECTION)
    assert head == "tree of steps (* chosen):"
    assert first == "* |-    -  A = 3"


def test_scores_that_are_not_of_lines_are_not_shown_beside_lines() -> None:
    """With another splitter of steps a line's score would be somebody else's."""
    assert scored_steps(candidate("a\nb\n\nc", 0.5, 0.4)) == [("a", None), ("b", None), ("c", None)]
    assert scored_steps(candidate("a\n\nb", 0.5, 0.4)) == [("a", 0.5), ("b", 0.4)]


def test_words_of_a_candidate_stay_in_their_column() -> None:
    """Line ends, control characters, bidirectional overrides and our own marks in a candidate draw nothing."""
    hostile = (candidate(HOSTILE, *[0.5] * len(HOSTILE.split("\n"))), candidate("8", 0.9))
    selection = Selection(winners=(1,), votes=(vote(HOSTILE, 9.0, 0), vote("8", 1.0, 1)), abstained=())
    lines = [
        *vote_lines(reported(hostile, selection)),
        *tree_lines(hostile, selection),
    ]
    assert all(line.isprintable() for line in lines)
    assert [line for line in lines if line.startswith("*")] == [
        "*        1 ###                          1 candidate     8", "* |- 0.90  8", "* |    =>  8",
    ]  # fmt: skip
    assert sum(line[2:].lstrip("|` -").startswith("=>") for line in lines) == 2


def test_a_search_of_any_size_is_shown_within_bounds() -> None:
    """Neither votes nor steps flood the terminal, and what is left out is said."""
    many = [candidate(f"{index}\nend", 0.5, 0.5) for index in range(200)]
    votes = tuple(vote(str(index), 1.0, index) for index in range(200))
    selection = Selection(winners=(0,), votes=votes, abstained=())
    assert len(list(tree_lines(many, selection))) == MAX_TREE_LINES + 2
    shown = list(vote_lines(reported(tuple(many), selection)))
    assert len(shown) == MAX_VOTES + 2
    assert "180 further answers" in shown[-1]
    deep = candidate("\n".join(map(str, range(2 * sys.getrecursionlimit()))))
    assert (
        len(list(tree_lines([deep], Selection(winners=(0,), votes=(), abstained=())))) == MAX_TREE_LINES + 2
    )


@given(text=st.text(), columns=st.integers(4, 40))
@example(text="0 \u0300", columns=4)
@example(text="\u1100\u0300\u1161", columns=4)
def test_one_line_is_one_printable_line(text: str, columns: int) -> None:
    """Whatever comes in, one line of bounded length comes out, and shown again it is the same."""
    shown = one_line(text, columns)
    assert shown.isprintable()
    assert len(shown) <= columns
    assert one_line(shown, columns) == shown


def test_wide_characters_count_twice() -> None:
    """Columns are what a terminal shows, not characters."""
    assert one_line("日本語日本語", 12) == "日本語日本語"
    assert one_line("日本語日本語", 11) == "日本語日..."


class Screen(io.StringIO):
    """A terminal that remembers what was written."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_progress_is_written_over_and_taken_away() -> None:
    """One line on a terminal, cleared before anything else is shown; nothing where nobody watches."""
    screen, file = Screen(), io.StringIO()
    for stream in (screen, file):
        line = ProgressLine(stream)
        line.show("searching: 1\nended\x1b[2J" + 200 * "x")
        line.show("searching: 2 ended")
        line.clear()
        line.clear()
    assert file.getvalue() == ""
    first, second, last = screen.getvalue().split("\r\x1b[2K")[1:]
    assert first.isprintable()
    assert len(first) < 80
    assert second == "searching: 2 ended"
    assert last == ""


def test_flops_are_readable() -> None:
    """Three digits and a unit."""
    assert [flops(x) for x in (0.0, 12.0, 1.5e6, 2.345e9, 7e12, 8.7e14)] == [
        "0 FLOP", "12 FLOP", "1.5 MFLOP", "2.35 GFLOP", "7 TFLOP", "870 TFLOP",
    ]  # fmt: skip
