# SPDX-License-Identifier: Apache-2.0
"""The adapter file: a closed set of keys, bounded, and a typed error for everything else."""

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_scorers import ADAPTERS, CONVENTIONS

from adyton_enclave.scoring import parse_adapter
from adyton_enclave.scoring.adapter import MAX_ADAPTER_BYTES
from adyton_enclave.scoring.calibration import Calibration, Piecewise, Platt
from adyton_enclave.scoring.files import read_pinned
from adyton_enclave.scoring.layout import Slot, parse_template
from adyton_enclave.scoring.splitter import RULES, WHITESPACE, Splitter, tidy
from adyton_protocol.digests import sha256_hex
from adyton_protocol.errors import AdapterError
from adyton_protocol.selection.aggregate import AGGREGATES, aggregate

TEXTS = {name: (ADAPTERS / f"{name}.toml").read_text() for name in CONVENTIONS}
WORDS = TEXTS["adyton-words-scorer"]
GOLDEN = '[[golden]]\nproblem = "p"\nsteps = ["s"]\nscores = [0.9]\ntolerance = 0.01\n'


def test_the_shipped_adapters_are_all_read() -> None:
    """Every file beside them is one of the conventions, and none pretends to be measured."""
    assert {path.stem for path in ADAPTERS.glob("*.toml")} == {*CONVENTIONS, "likelihood"}
    for name, text in TEXTS.items():
        adapter = parse_adapter(text.encode())
        assert (adapter.name, adapter.golden, adapter.calibration) == (name, (), Calibration())
        assert adapter.digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
        assert (adapter.labels is None) == (adapter.activation is not None)


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("version = 1", "version = 2", "version"),
        ("version = 1", "version = 1\nextra = 1", "extra is not a key"),
        ("version = 1", 'version = 1\n"a\\u0007" = 1', "a.x07 is not a key"),
        ('kind = "tag-token"', 'kind = "orm"', "kind must be one of"),
        ('kind = "tag-token"', 'kind = "head"', "head.activation is missing"),
        ('name = "adyton-words-scorer"', 'name = "Adyton Words"', "name must be"),
        ("{problem}", "{question}", "framing.prefix has an unknown slot"),
        ("{problem}", "{problem", "framing.prefix has a brace"),
        ("{problem}", "{problem}{problem}", "framing.prefix must hold"),
        ("{problem}", "", "framing.prefix must hold"),
        ("{bos}<|user|>", "<|user|>{bos}", "beginning only"),
        (" {step}", "{bos}{step}", "framing.step must not hold"),
        ("{step}\\n{tag}", "{tag}{step}", "framing.step must hold"),
        ('whitespace = "squeeze"', 'whitespace = "none"', "framing.whitespace must be one of"),
        ('whitespace = "squeeze"', 'whitespace = "squeeze"\nsystem = "x"', "framing.system is not a key"),
        ('split = "newline"', 'split = "sentence"', "steps.split must be one of"),
        ('split = "newline"', 'split = "delimiter"', "steps.delimiter is missing"),
        ('split = "newline"', 'split = "newline"\ndelimiter = "x"', "steps.delimiter is not a key"),
        ('text = "<step>"', 'text = ""', "tag.text must be a non-empty"),
        ("id = 6", "id = -1", "tag.id must be a whole number"),
        ("id = 8", "id = 7", "labels.bad must be another token"),
        ("[labels]", "[read]\noffset = 9\n[labels]", "read.offset must be a whole number"),
        ("[labels]", "[head]\nactivation = 'sigmoid'\n[labels]", "head is not a key"),
        ("[labels]", "[calibration]\nkind = 'platt'\na = 1\n[labels]", "calibration.b is missing"),
        ("[labels]", "[calibration]\nkind = 'platt'\na = -1.0\nb = 0\n[labels]", "calibration.a must be"),
        ("[labels]", "[calibration]\nkind = 'piecewise'\nx = [0.5, 0.5]\ny = [0, 1]\n[labels]", "ascend"),
        (
            "[labels]",
            "[calibration]\nkind = 'piecewise'\nx = [0.1, 0.5]\ny = [1, 0]\n[labels]",
            "y must ascend",
        ),
        ("[labels]", "[calibration]\nkind = 'piecewise'\nx = [nan]\ny = [0]\n[labels]", "numbers"),
        ("[labels]", "[calibration]\nauc = 1.5\n[labels]", "calibration.auc must be"),
        ("[labels]", "golden = []\n[labels]", "golden"),
    ],
)
def test_what_is_wrong_is_named(before: str, after: str, problem: str) -> None:
    """Each edit breaks one rule, and the message names the key."""
    edited = WORDS.replace(before, after, 1)
    assert edited != WORDS
    with pytest.raises(AdapterError, match=problem):
        parse_adapter(edited.encode())


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("scores = [0.9]", "scores = [0.9, 0.1]", "as many as steps"),
        ("scores = [0.9]", "scores = [1.1]", "scores must hold"),
        ("scores = [0.9]", "scores = [0.503]", "swapped"),
        ("tolerance = 0.01", "tolerance = 0.2", "tolerance must be"),
        ("tolerance = 0.01", "tolerance = nan", "tolerance must be"),
        ('steps = ["s"]', "steps = []", "steps must be a non-empty"),
        ('steps = ["s"]', 'steps = [" "]', "blank"),
        ('problem = "p"', 'problem = " "', "blank"),
        (GOLDEN, GOLDEN * 65, "at most 64 times"),
    ],
)
def test_golden_vectors_must_be_able_to_tell(before: str, after: str, problem: str) -> None:
    """Loose, empty or indifferent vectors are refused."""
    assert len(parse_adapter((WORDS + GOLDEN).encode()).golden) == 1
    with pytest.raises(AdapterError, match=problem):
        parse_adapter((WORDS + GOLDEN).replace(before, after).encode())


def test_turns_and_the_next_token_have_rules_of_their_own() -> None:
    """The prediction of a tag is read before it; the template puts the beginning of text."""
    text = TEXTS["rlhflow"]
    for edited in (
        text.replace("offset = -1", "offset = 0"),
        text.replace('"{problem} {step}"', '"{bos}{problem} {step}"'),
        text.replace('"{problem} {step}"', '"{step} {problem}"'),
        text.replace('layout = "turns"', 'layout = "turns"\nprefix = "{problem}"'),
    ):
        assert edited != text
        with pytest.raises(AdapterError):
            parse_adapter(edited.encode())
    assert parse_adapter(text.replace("[read]\noffset = -1\n", "").encode()).offset == -1


@given(st.binary(max_size=200))
def test_any_bytes_are_an_adapter_or_a_typed_error(data: bytes) -> None:
    """Hostile bytes: alone, and in the middle of an adapter."""
    middle = WORDS.encode()
    for hostile in (data, middle[:300] + data + middle[300:], middle + b"\n" + data):
        with contextlib.suppress(AdapterError):
            parse_adapter(hostile)


@given(
    st.recursive(
        st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=6
    ),
    st.sampled_from(["version", "name", "kind", "framing", "steps", "tag", "labels", "read", "golden"]),
)
def test_any_value_under_any_key_is_a_typed_error_or_fits(value: object, key: str) -> None:
    """A value of another type never becomes another exception."""
    written = repr(value) if not isinstance(value, str) else '"x"'
    text = f"{key} = {written}\n".replace("'", '"')
    with pytest.raises(AdapterError):
        parse_adapter(text.encode())


def test_size_depth_and_dotted_keys_are_bounded() -> None:
    """What would take long, or much memory, is refused at once."""
    for hostile in (
        b"#" * (MAX_ADAPTER_BYTES + 1),
        b"x = " + b"[" * 100_000,
        (".".join(["a"] * 100_000) + " = 1").encode(),
        b"\xff",
    ):
        with pytest.raises(AdapterError):
            parse_adapter(hostile)


def test_a_file_is_read_once_and_only_with_its_digest(tmp_path: Path) -> None:
    """Another byte, another size or no file at all: an error that names the file, not its content."""
    path = tmp_path / "adapter.toml"
    path.write_bytes(b"canary")
    right = sha256_hex(b"canary")
    assert read_pinned(path, right, max_bytes=6, what="the adapter file") == b"canary"
    with pytest.raises(AdapterError, match="more than 5 bytes"):
        read_pinned(path, right, max_bytes=5, what="the adapter file")
    path.write_bytes(b"canarz")
    with pytest.raises(AdapterError, match="the adapter file has digest") as raised:
        read_pinned(path, right, max_bytes=6, what="the adapter file")
    assert "canarz" not in str(raised.value)
    with pytest.raises(AdapterError, match="cannot be read"):
        read_pinned(tmp_path / "none", right, max_bytes=6, what="the adapter file")


def test_templates_have_slots_and_doubled_braces() -> None:
    """Text between slots stays together."""
    assert parse_template("a{{b}}{step}c{tag}") == ("a{b}", Slot.STEP, "c", Slot.TAG)
    assert parse_template("") == ()
    for wrong in ("{", "}", "{x}", "{{}", "{step", "{Step}"):
        with pytest.raises(ValueError, match=r"brace|slot"):
            parse_template(wrong)


@pytest.mark.parametrize(
    ("rule", "text", "steps"),
    [
        ("newline", " a\n\n b\r\n  \nc", [" a", " b\r", "c"]),
        ("blank-line", "a\nb\n \n\nc\n", ["a\nb", "c"]),
        ("numbered", "Step 1: a\nx\nStep 2: b Step 3: c", ["Step 1: a\nx\n", "Step 2: b Step 3: c"]),
        ("numbered", "so\nStep 1: a", ["so\n", "Step 1: a"]),
        ("delimiter", "a;;b;;;;c", ["a", "b", "c"]),
        ("newline", " \n\t", []),
    ],
)
def test_answers_fall_into_steps(rule: str, text: str, steps: list[str]) -> None:
    """By the adapter's rule; what is blank is no step."""
    delimiter = ";;" if rule == "delimiter" else ""
    splitter = Splitter(rule=next(each for each in RULES if each == rule), delimiter=delimiter)
    assert splitter.split(text) == steps
    assert all(splitter.ends)


@given(st.text(), st.sampled_from(RULES))
def test_splitting_loses_nothing_but_blanks(text: str, rule: str) -> None:
    """All that is not white space (or a delimiter) is in some step, in order."""
    splitter = Splitter(rule=next(each for each in RULES if each == rule), delimiter=";")
    kept = "".join("".join(step.split()) for step in splitter.split(text))
    assert kept == "".join(text.replace(";", "").split() if rule == "delimiter" else text.split())
    for whitespace in WHITESPACE:
        assert "".join(tidy(text, whitespace).split()) == "".join(text.split())


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1e-3, 1e3), st.floats(-50, 50))
def test_calibration_keeps_the_order_and_the_range(one: float, other: float, a: float, b: float) -> None:
    """A calibrated score is from 0 to 1, and the better of two steps stays the better."""
    low, high = sorted((one, other))
    for curve in (None, Platt(a=a, b=b), Piecewise(x=(0.2, 0.6, 0.7), y=(0.1, 0.1, 0.9))):
        calibration = Calibration(curve=curve)
        assert 0 <= calibration.apply(low) <= calibration.apply(high) <= 1


def test_a_piecewise_calibration_goes_through_its_knots() -> None:
    """Straight between them, constant outside."""
    curve = Piecewise(x=(0.2, 0.6), y=(0.1, 0.9))
    assert [curve.apply(raw) for raw in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0.1, 0.1, 0.5, 0.9, 0.9])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_aggregates_are_scores(scores: list[float]) -> None:
    """Each is from 0 to 1, and the product never exceeds the least."""
    found = {how: aggregate(scores, how) for how in AGGREGATES}
    assert all(0 <= value <= 1 for value in found.values())
    assert found["prod"] <= found["min"] <= found["mean"] + 1e-12
    assert found["last"] == scores[-1]
