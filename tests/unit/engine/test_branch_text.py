# SPDX-License-Identifier: Apache-2.0
"""The text of a branch: nothing is lost or invented between steps, forks and tokens, and stop strings straddle all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_enclave.engine.branch_text import BranchText
from adyton_enclave.engine.detokenizer import TextAssembler

PIECES = st.lists(st.one_of(st.binary(max_size=3), st.text("ab\né", max_size=3).map(str.encode)), max_size=30)
MARKS = st.lists(st.text("ab\né", min_size=1, max_size=3), max_size=3)


@given(pieces=PIECES, stops=MARKS, pauses=st.sets(st.integers(0, 30)), forks=st.sets(st.integers(0, 30)))
def test_steps_and_forks_add_up_to_the_ordinary_text(
    pieces: list[bytes], stops: list[str], pauses: set[int], forks: set[int]
) -> None:
    """However tokens cut characters and steps cut tokens, the whole is what an ordinary choice shows."""
    ordinary = TextAssembler(stops)
    expected = ""
    branch = BranchText(stops)
    text, stopped = "", False
    branch.begin(())
    for at, piece in enumerate(pieces):
        expected += ordinary.push(piece, None)[0]
        if at in pauses:
            text += branch.step
            if at in forks:
                branch = branch.fork()
            branch.begin(())
        stopped = branch.push(piece)
        assert stopped == ordinary.stopped
        if stopped:
            break
    if not stopped:
        branch.finish()
    expected += ordinary.finish()[0]
    whole = text + branch.step
    # A stop string may also be complete only with the last bytes, which an ordinary choice looks for as well.
    assert whole[: len(whole) - branch.cut] == expected or (not stopped and ordinary.stopped)


@given(pieces=PIECES, until=MARKS)
def test_a_step_is_over_with_the_token_that_completes_a_delimiter(
    pieces: list[bytes], until: list[str]
) -> None:
    """Not before, not later, and only text of this step counts."""
    branch = BranchText(())
    branch.begin(())
    branch.push(b"ab\n")
    branch.begin(until)
    for piece in pieces:
        branch.push(piece)
        assert branch.reached == any(text in branch.step for text in until)
        if branch.reached:
            break


@pytest.mark.parametrize("fork", [False, True])
def test_a_stop_string_that_began_in_an_earlier_step_is_taken_back(fork: bool) -> None:
    """What was reported of it is counted as cut, also by a fork; a branch that goes on counts anew."""
    branch = BranchText(("abc",))
    branch.begin(())
    assert not branch.push(b"xab")
    if fork:
        branch = branch.fork()
    branch.begin(())
    assert branch.push(b"cd")
    assert branch.cut == 4
    branch.begin(())
    assert not branch.push(b"e")
    assert branch.cut == 0
