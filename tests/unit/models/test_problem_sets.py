# SPDX-License-Identifier: Apache-2.0
"""Problem files of anybody's making: what is read, and that each fault is named with its line."""

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_models.problem_sets import MAX_LINE_BYTES, MAX_PROBLEM_CHARACTERS, read_problems, read_set
from adyton_protocol.errors import ConfigError


def write(directory: Path, *lines: object) -> Path:
    """A file of these objects."""
    path = directory / "problems.jsonl"
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    )
    return path


def test_numbers_keep_their_spelling_and_other_members_are_left_alone(tmp_path: Path) -> None:
    """0.1 stays a tenth; ids default to the order; a bucket names the group before the steps do."""
    path = write(
        tmp_path,
        {"problem": "a", "answer": 0.1, "steps": 2, "template": 7},
        b"",
        {"problem": "b", "answer": "x", "id": "mine", "bucket": "hard", "steps": 1, "solution": "s"},
        {"problem": "c", "answer": 7},
    )
    first, second, third = read_problems(path)
    assert (first.id, first.answer, first.group) == ("1", "0.1", "2 steps")
    assert (second.id, second.group) == ("mine", "hard")
    assert (third.id, third.answer, third.group) == ("3", "7", "")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"\xff", "not a JSON object"),
        (b"[" * 50_000, "not a JSON object"),
        (b'{"problem": "a", "answer": NaN}', "not a JSON object"),
        ({"problem": "a"}, "`answer` is missing"),
        ({"answer": 1}, "`problem` is missing"),
        ({"problem": "", "answer": 1}, "`problem` is not"),
        ({"problem": "a", "answer": True}, "`answer` is not"),
        ({"problem": "a", "answer": [1]}, "`answer` is not"),
        ({"problem": "a", "answer": 1, "steps": -1}, "`steps` is not a whole number"),
        ({"problem": "a", "answer": 1, "steps": 1.5}, "`steps` is not a whole number"),
        ({"problem": "a", "answer": 1, "bucket": {}}, "`bucket` is not"),
        ({"problem": "a", "answer": 1, "solution": []}, "`solution` is not"),
        ({"problem": "a", "answer": 1, "id": "1"}, "occurs twice"),
        ({"problem": "a" * (MAX_PROBLEM_CHARACTERS + 1), "answer": 1}, "`problem` has more than"),
        ({"problem": "a", "answer": "9" * 129}, "`answer` has more than"),
        (b" " * (MAX_LINE_BYTES + 1), "a line has at most"),
    ],
)
def test_a_faulty_line_is_named(tmp_path: Path, line: object, fault: str) -> None:
    """The error has the number of the line and what is wrong, and none of its content."""
    path = write(tmp_path, {"problem": "secret", "answer": 1}, line)
    with pytest.raises(ConfigError, match=f"line 2: .*{fault}") as raised:
        read_problems(path)
    assert "secret" not in str(raised.value)


def test_missing_and_empty_sets_are_refused(tmp_path: Path) -> None:
    """A name that is nothing lists the names that are something."""
    with pytest.raises(ConfigError, match="holds no problem"):
        read_problems(write(tmp_path))
    with pytest.raises(ConfigError, match="cannot read"):
        read_problems(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="heldout, ood, handwritten"):
        read_set("ghost")
    assert {question.group for question in read_set("ood")} >= {"operations 11-12"}


@given(st.binary(max_size=400))
def test_any_bytes_are_problems_or_a_typed_error(data: bytes) -> None:
    """No file makes the reader fail otherwise."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "p"
        path.write_bytes(data)
        with contextlib.suppress(ConfigError):
            assert read_problems(path)
