# SPDX-License-Identifier: Apache-2.0
"""The adapter file: how a process reward model wants to be asked, and where its verdict stands.

A TOML document with a closed set of keys; ``docs/scorers.md`` is its reference. It is attacker-controlled like every
file, bounded, and checked against itself here; :mod:`~adyton_enclave.scoring.framing` checks it against its model. Its
SHA-256 is part of the model identity, with the calibration and the golden vectors in it.
"""

import hashlib
import itertools
import re
import tomllib
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from adyton_enclave.scaling.calibration import ScalingCalibration, read_scaling
from adyton_enclave.scoring.calibration import Calibration, Piecewise, Platt
from adyton_enclave.scoring.layout import (
    MAX_TEMPLATE_CHARS,
    Slot,
    Template,
    TextLayout,
    TurnsLayout,
    parse_template,
    slots_of,
)
from adyton_enclave.scoring.splitter import RULES, WHITESPACE, Splitter, Whitespace
from adyton_enclave.toml_table import Table
from adyton_protocol.digests import Digest
from adyton_protocol.errors import AdapterError

VERSION: Final = 1
MAX_ADAPTER_BYTES: Final = 256 * 1024
MAX_OFFSET: Final = 8
"""Furthest that a scorer is read from its tag, in tokens."""
MAX_TOKEN_ID: Final = 2**31 - 1
MAX_TAG_CHARS: Final = 128
MAX_GOLDEN: Final = 64
MAX_GOLDEN_STEPS: Final = 64
MAX_GOLDEN_CHARS: Final = 16 * 1024
MAX_TOLERANCE: Final = 0.1
"""A looser check would let a shifted read position pass."""
MAX_KNOTS: Final = 256
_MAX_DOTS: Final = 16
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FILE: Final = "the adapter"

Kind = Literal["tag-token", "next-token", "head", "likelihood"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Activation = Literal["sigmoid", "softmax"]
ACTIVATIONS: Final[tuple[Activation, ...]] = get_args(Activation)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedToken:
    """A token by its id, and its text, which the model's vocabulary must agree with."""

    id: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The two tokens between whose logits the verdict stands: the score is the softmax of the good one."""

    good: NamedToken
    bad: NamedToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A problem with steps whose scores are known.

    Attributes:
        scores: Calibrated, one for each step.
        tolerance: Largest difference that is not an error.
    """

    problem: str = field(repr=False)
    steps: tuple[str, ...] = field(repr=False)
    scores: tuple[float, ...]
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A parsed adapter.

    Attributes:
        name: Of the convention.
        kind: ``tag-token``: the verdict stands in the logits at the tag. ``next-token``: it is the prediction of the
            tag. ``head``: a side-car head reads the hidden state. ``likelihood``: the verdict is how likely a model
            that writes such answers finds the least likely step so far.
        layout: What problem and steps become.
        whitespace: What becomes of their white space first.
        splitter: How an answer falls into steps.
        tag: Stands once behind each step; None for ``likelihood``, which has none.
        offset: Where to read, in tokens from the tag.
        labels: For the kinds that read a tag's logits, else None.
        activation: For a head, else None: ``sigmoid`` of one output, or ``softmax`` of two, the second being sound.
        calibration: What was measured.
        golden: What is checked at load; may be empty in a convention that no model was measured for.
        scaling: What searches with this scorer were measured to bring and to cost, for each generator.
        digest: SHA-256 of the exact bytes of the file.
    """

    name: str
    kind: Kind
    layout: TextLayout | TurnsLayout
    whitespace: Whitespace
    splitter: Splitter
    tag: NamedToken | None
    offset: int
    labels: Labels | None
    activation: Activation | None
    calibration: Calibration
    golden: tuple[Golden, ...]
    scaling: tuple[ScalingCalibration, ...]
    digest: Digest


def parse_adapter(data: bytes) -> Adapter:
    """Parse the bytes of an adapter file.

    Args:
        data: Attacker-controlled.

    Raises:
        AdapterError: Too large, not TOML, an unknown or missing key, a value out of range, or a contradiction.
    """
    root = Table(_FILE, _document(data), error=AdapterError)
    root.whole("version", low=VERSION, high=VERSION)
    name = root.text("name")
    if not _NAME.fullmatch(name):
        raise root.fail("name", "must be lower-case letters, digits and . _ -, at most 64 of them")
    kind = root.choice("kind", KINDS)
    framing = root.table("framing")
    layout = _layout(framing, kind)
    whitespace = framing.choice("whitespace", WHITESPACE, "strip")
    framing.finish()
    adapter = Adapter(
        name=name,
        kind=kind,
        layout=layout,
        whitespace=whitespace,
        splitter=_splitter(root.table("steps")),
        tag=None if kind == "likelihood" else _token(root, "tag"),
        offset=0 if kind == "likelihood" else _offset(root.table("read"), kind),
        labels=_labels(root.table("labels")) if kind in {"tag-token", "next-token"} else None,
        activation=_activation(root.table("head")) if kind == "head" else None,
        calibration=_calibration(root.table("calibration")),
        golden=tuple(map(_golden, root.tables("golden"))) if root.has("golden") else (),
        scaling=read_scaling(root.tables("scaling")) if root.has("scaling") else (),
        digest=Digest("sha256:" + hashlib.sha256(data).hexdigest()),
    )
    root.finish()
    if len(adapter.golden) > MAX_GOLDEN:
        raise root.fail("golden", f"must be given at most {MAX_GOLDEN} times")
    if adapter.golden and not any(_telling(golden) for golden in adapter.golden):
        raise root.fail("golden", "holds no score that would change noticeably if good and bad were swapped")
    return adapter


def _document(data: bytes) -> dict[str, object]:
    if len(data) > MAX_ADAPTER_BYTES:
        raise AdapterError(f"{_FILE} has {len(data)} bytes; at most {MAX_ADAPTER_BYTES} are allowed")
    try:
        text = data.decode("utf-8")
        # SECURITY: the time that tomllib takes for a dotted key grows with the square of its parts.
        if any(line.partition("=")[0].count(".") > _MAX_DOTS for line in text.splitlines() if "=" in line):
            raise AdapterError(f"{_FILE} has a key of more than {_MAX_DOTS} parts")
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        # SECURITY: not chained; the cause quotes the file, and golden vectors may be somebody's problems.
        raise AdapterError(f"{_FILE} is not valid TOML in UTF-8") from None


def _template(table: Table, key: str, expected: tuple[Slot, ...], default: str | None = None) -> Template:
    """A template whose slots, but for those of the beginning of text, are the expected ones in order."""
    try:
        template = parse_template(table.text(key, default, max_chars=MAX_TEMPLATE_CHARS))
    except ValueError as error:
        raise table.fail(key, str(error)) from None
    if [slot for slot in slots_of(template) if slot is not Slot.BOS] != list(expected):
        wanted = " and then ".join(f"{{{slot.value}}}" for slot in expected)
        raise table.fail(key, f"must hold {wanted}, once each, and no other slot but {{bos}}")
    if Slot.BOS in template[1:]:
        raise table.fail(key, "may hold {bos} at its beginning only")
    return template


def _layout(table: Table, kind: Kind) -> TextLayout | TurnsLayout:
    if kind == "likelihood":
        return _text(table, (Slot.STEP,))
    if table.choice("layout", ("text", "turns"), "text") == "turns":
        return _turns(table)
    return _text(table, (Slot.STEP, Slot.TAG))


def _text(table: Table, slots: tuple[Slot, ...]) -> TextLayout:
    prefix = _template(table, "prefix", (Slot.PROBLEM,))
    source = table.text("step", max_chars=MAX_TEMPLATE_CHARS)
    again = Table(_FILE, {"step": source}, name="framing", error=AdapterError)
    step = _template(again, "step", slots)
    first = _template(table, "first_step", slots, source)
    for key, template in (("step", step), ("first_step", first)):
        if Slot.BOS in template:
            raise table.fail(key, "must not hold {bos}")
    return TextLayout(prefix=prefix, first_step=first, step=step)


def _turns(table: Table) -> TurnsLayout:
    layout = TurnsLayout(
        system=table.text("system", max_chars=MAX_TEMPLATE_CHARS) if table.has("system") else None,
        first_user=_template(table, "first_user", (Slot.PROBLEM, Slot.STEP)),
        user=_template(table, "user", (Slot.STEP,), "{step}"),
    )
    if Slot.BOS in (*layout.first_user, *layout.user):
        raise table.fail("first_user", "must not hold {bos}: the chat template puts it")
    return layout


def _splitter(table: Table) -> Splitter:
    rule = table.choice("split", RULES, "newline")
    delimiter = table.text("delimiter", max_chars=MAX_TAG_CHARS) if rule == "delimiter" else ""
    table.finish()
    return Splitter(rule=rule, delimiter=delimiter)


def _token(parent: Table, key: str) -> NamedToken:
    table = parent.table(key)
    token = NamedToken(
        id=table.whole("id", low=0, high=MAX_TOKEN_ID), text=table.text("text", max_chars=MAX_TAG_CHARS)
    )
    table.finish()
    return token


def _offset(table: Table, kind: Kind) -> int:
    # The prediction of the tag stands before it; that is all that sets the two kinds apart.
    standard, high = (-1, -1) if kind == "next-token" else (0, MAX_OFFSET)
    offset = table.whole("offset", standard, low=-MAX_OFFSET, high=high)
    table.finish()
    return offset


def _labels(table: Table) -> Labels:
    labels = Labels(good=_token(table, "good"), bad=_token(table, "bad"))
    table.finish()
    if labels.good.id == labels.bad.id:
        raise table.fail("bad", "must be another token than good")
    return labels


def _activation(table: Table) -> Activation:
    activation = table.choice("activation", ACTIVATIONS)
    table.finish()
    return activation


def _calibration(table: Table) -> Calibration:
    kind = table.choice("kind", ("none", "platt", "piecewise"), "none")
    curve: Platt | Piecewise | None = None
    if kind == "platt":
        curve = Platt(a=table.real("a", low=1e-6, high=1e6), b=table.real("b", low=-1e6, high=1e6))
    elif kind == "piecewise":
        x = table.reals("x", low=0.0, high=1.0, max_items=MAX_KNOTS)
        y = table.reals("y", low=0.0, high=1.0, max_items=MAX_KNOTS)
        if len(x) != len(y) or any(low >= high for low, high in itertools.pairwise(x)):
            raise table.fail("x", "must ascend strictly and be as long as y")
        if any(low > high for low, high in itertools.pairwise(y)):
            raise table.fail("y", "must ascend")
        curve = Piecewise(x=x, y=y)
    calibration = Calibration(
        curve=curve,
        auc=table.real("auc", low=0.0, high=1.0) if table.has("auc") else None,
        threshold=table.real("threshold", 0.5, low=0.0, high=1.0),
        n_steps=table.whole("n_steps", 0, low=0),
    )
    table.finish()
    return calibration


def _golden(table: Table) -> Golden:
    golden = Golden(
        problem=table.text("problem", max_chars=MAX_GOLDEN_CHARS),
        steps=table.texts("steps", max_items=MAX_GOLDEN_STEPS, max_chars=MAX_GOLDEN_CHARS),
        scores=table.reals("scores", low=0.0, high=1.0, max_items=MAX_GOLDEN_STEPS),
        tolerance=table.real("tolerance", low=0.0, high=MAX_TOLERANCE),
    )
    table.finish()
    if len(golden.steps) != len(golden.scores):
        raise table.fail("scores", "must be as many as steps")
    if not golden.problem.strip() or not all(step.strip() for step in golden.steps):
        raise table.fail("steps", "must not be blank, and neither must the problem")
    return golden


def _telling(golden: Golden) -> bool:
    """Whether some score differs from what it would be if good and bad were swapped."""
    return any(abs(2 * score - 1) > golden.tolerance for score in golden.scores)
