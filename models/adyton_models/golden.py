# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: problems with steps whose scores are written into an adapter and checked whenever it is loaded.

A wrong read position, swapped labels or another head give numbers that look like scores. Vectors are only worth
something if they tell these faults, so each fault is committed here on purpose, and vectors that do not notice are
refused.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from adyton_enclave.scaling.calibration import Point, ScalingCalibration
from adyton_enclave.scoring import Adapter, parse_adapter
from adyton_enclave.scoring.adapter import MAX_GOLDEN, MAX_OFFSET, MAX_TOLERANCE, Golden, Labels
from adyton_enclave.scoring.calibration import Calibration, Platt
from adyton_enclave.scoring.files import Ingredients
from adyton_enclave.scoring.head import Head, Layer
from adyton_models.scoring import ScorerRunner
from adyton_protocol.errors import AdapterError, ConfigError

TOLERANCE: Final = 0.01
"""Other kernels of other processors round otherwise; a fault moves scores much further."""
MAX_FILE_BYTES: Final = 4 * 1024 * 1024

EXAMPLES: Final = (
    (
        "Ann has 3 boxes with 4 pens each. She gives 5 pens away. How many pens has she left?",
        ("Step 1: 3 boxes with 4 pens are 3 * 4 = 12 pens.", "Step 2: 12 - 5 = 7. The answer is: 7"),
    ),
    (
        "Ann has 3 boxes with 4 pens each. She gives 5 pens away. How many pens has she left?",
        ("Step 1: 3 boxes with 4 pens are 3 + 4 = 7 pens.", "Step 2: 7 + 5 = 12. The answer is: 12"),
    ),
)
"""Plain arithmetic, once right and once wrong, for scorers of any kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """A problem with steps, and what somebody else's implementation gives for them, if known."""

    problem: str = field(repr=False)
    steps: tuple[str, ...] = field(repr=False)
    expected: tuple[float, ...] | None = None


def read_vectors(path: Path, adapter: Adapter) -> list[Vector]:
    """Vectors of a JSONL file: `problem` and `steps` (or `solution`, which is cut by the adapter), optionally `scores`.

    Raises:
        ConfigError: The file cannot be read or a line is wrong; names the line.
    """
    try:
        text = path.read_bytes()[: MAX_FILE_BYTES + 1].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path} as UTF-8") from error
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} has more than {MAX_FILE_BYTES} bytes")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not 0 < len(lines) <= MAX_GOLDEN:
        raise ConfigError(f"{path} has {len(lines)} vectors; 1 to {MAX_GOLDEN} are allowed")
    return [_vector(line, f"{path}, line {number}", adapter) for number, line in lines]


def _vector(line: str, where: str, adapter: Adapter) -> Vector:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON") from error
    if not isinstance(row, dict) or not isinstance(row.get("problem"), str):
        raise ConfigError(f"{where}: not an object with a text under `problem`")
    steps = row.get("steps")
    if steps is None and isinstance(row.get("solution"), str):
        steps = adapter.splitter.split(row["solution"])
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
        raise ConfigError(f"{where}: needs a list of texts under `steps`, or a text under `solution`")
    scores = row.get("scores")
    if scores is not None and (
        not isinstance(scores, list)
        or len(scores) != len(steps)
        or not all(isinstance(score, int | float) and 0 <= score <= 1 for score in scores)
    ):
        raise ConfigError(f"{where}: `scores` must be a number from 0 to 1 for each step")
    return Vector(
        problem=row["problem"],
        steps=tuple(steps),
        expected=None if scores is None else tuple(map(float, scores)),
    )


def make_golden(
    runner: ScorerRunner, vectors: Sequence[Vector], tolerance: float = TOLERANCE
) -> list[Golden]:
    """Score the vectors, and see that the scores tell every fault that can be made with this adapter.

    Raises:
        ConfigError: The scorer does not give what a vector expects, or a fault would pass unnoticed.
    """
    if not 0 < tolerance <= MAX_TOLERANCE:
        raise ConfigError(f"the tolerance must lie above 0 and be at most {MAX_TOLERANCE:g}")
    pairs = [(vector.problem, vector.steps) for vector in vectors]
    found = runner.score_many(pairs)
    golden = []
    for number, (vector, scores) in enumerate(zip(vectors, found, strict=True), 1):
        expected = tuple(scores) if vector.expected is None else vector.expected
        worst = max(abs(one - other) for one, other in zip(scores, expected, strict=True))
        if worst > tolerance:
            raise ConfigError(
                f"vector {number}: the scorer is off by {worst:.4f} from the scores that the file expects, where "
                f"{tolerance:g} is allowed; check read offset, labels and framing of the adapter"
            )
        golden.append(
            Golden(
                problem=vector.problem,
                steps=vector.steps,
                scores=tuple(round(score, 6) for score in expected),
                tolerance=tolerance,
            )
        )
    unnoticed = [fault for fault, scores in _faulty_scores(runner, pairs) if _agree(golden, scores)]
    if unnoticed:
        raise ConfigError(
            f"these vectors would not notice {', '.join(unnoticed)}; take steps that the scorer is sure about, "
            "right ones and wrong ones, or a smaller --tolerance"
        )
    return golden


def _agree(golden: Sequence[Golden], found: Sequence[Sequence[float]]) -> bool:
    return all(
        abs(one - other) <= vector.tolerance
        for vector, scores in zip(golden, found, strict=True)
        for one, other in zip(vector.scores, scores, strict=True)
    )


def _faulty_scores(
    runner: ScorerRunner, pairs: Sequence[tuple[str, Sequence[str]]]
) -> list[tuple[str, list[list[float]]]]:
    """What each fault gives; faults that are refused without golden vectors are left out."""
    scorer = runner.scorer
    original = Ingredients(scorer.adapter, scorer.head)
    results = []
    try:
        for fault, ingredients in _faults(original):
            try:
                runner.scorer = scorer.with_ingredients(ingredients)
            except AdapterError:
                continue
            results.append((fault, runner.score_many(pairs)))
    finally:
        runner.scorer = scorer
    if scorer.adapter.kind == "likelihood":
        # It has no tag, labels or head to mix up; what can go wrong is what the steps are held against.
        unread = runner.score_many([("0", steps) for _, steps in pairs])
        results.append(("a problem that is not read", unread))
    return results


def _faults(original: Ingredients) -> list[tuple[str, Ingredients]]:
    adapter, head = original.adapter, original.head
    faults = [
        (
            f"a read offset of {adapter.offset + by}",
            replace(original, adapter=replace(adapter, offset=adapter.offset + by)),
        )
        for by in (-1, 1)
        if adapter.tag is not None and abs(adapter.offset + by) <= MAX_OFFSET
    ]
    if adapter.labels is not None:
        labels = Labels(good=adapter.labels.bad, bad=adapter.labels.good)
        faults.append(("swapped labels", replace(original, adapter=replace(adapter, labels=labels))))
    if head is not None:
        faults.append(("another head", replace(original, head=_turned(head))))
    return faults


def _turned(head: Head) -> Head:
    """The head with the rows of its last matrix the other way round, or with the opposite sign if there is one."""
    *layers, last = head.layers
    sign = -1 if len(last.bias) == 1 else 1
    turned = Layer(weight=sign * last.weight[::-1], bias=sign * last.bias[::-1])
    return replace(head, layers=(*layers, turned))


# --- Adapter files ----------------------------------------------------------------------------------------


def with_golden(adapter: bytes, golden: Sequence[Golden]) -> bytes:
    """An adapter file with these golden vectors in the place of its own.

    Raises:
        AdapterError: It is no adapter.
        ConfigError: Its golden vectors do not stand at its end.
    """
    before = parse_adapter(adapter)
    text = adapter.decode("utf-8")
    kept = text.partition("\n[[golden]]")[0].rstrip("\n") + "\n"
    made = (kept + "".join(map(_golden_table, golden))).encode()
    after = parse_adapter(made)
    if replace(after, golden=before.golden, digest=before.digest) != before:
        raise ConfigError("the [[golden]] tables of the adapter must stand at its end")
    return made


def with_calibration(adapter: bytes, calibration: Calibration) -> bytes:
    """An adapter file with this calibration, in front of its golden vectors.

    Golden vectors hold calibrated scores, so make them afterwards.

    Raises:
        AdapterError: It is no adapter.
        ConfigError: It has a calibration or golden vectors already.
    """
    before = parse_adapter(adapter)
    if before.calibration != Calibration() or before.golden:
        raise ConfigError(
            "the adapter has a calibration or golden vectors already; start from the convention's"
        )
    lines = ["", "[calibration]"]
    if isinstance(calibration.curve, Platt):
        lines += ['kind = "platt"', f"a = {calibration.curve.a!r}", f"b = {calibration.curve.b!r}"]
    elif calibration.curve is not None:
        x, y = list(calibration.curve.x), list(calibration.curve.y)
        lines += ['kind = "piecewise"', f"x = {x!r}", f"y = {y!r}"]
    if calibration.auc is not None:
        lines.append(f"auc = {calibration.auc!r}")
    lines += [f"threshold = {calibration.threshold!r}", f"n_steps = {calibration.n_steps}", ""]
    made = adapter.rstrip(b"\n") + b"\n" + "\n".join(lines).encode()
    parse_adapter(made)
    return made


def with_scaling(adapter: bytes, scaling: ScalingCalibration) -> bytes:
    """An adapter file with this calibration of searches, in the place of what it says of the same generator.

    Raises:
        AdapterError: It is no adapter.
        ConfigError: Its `[[scaling]]` tables do not stand right in front of its golden vectors.
    """
    before = parse_adapter(adapter)
    kept, golden, vectors = adapter.decode("utf-8").partition("\n[[golden]]")
    kept = kept.partition("\n[[scaling]]")[0].rstrip("\n") + "\n"
    known = {each.generator: each for each in before.scaling} | {scaling.generator: scaling}
    made = (kept + "".join(map(_scaling_table, known.values())) + golden + vectors).encode()
    after = parse_adapter(made)
    if replace(after, scaling=before.scaling, digest=before.digest) != before:
        raise ConfigError("the [[scaling]] tables of the adapter must stand right in front of [[golden]]")
    return made


def _scaling_table(scaling: ScalingCalibration) -> str:
    points = "".join(f"  {{ {_point(point)} }},\n" for point in scaling.points)
    auc = "" if scaling.answer_auc is None else f"answer_auc = {scaling.answer_auc!r}\n"
    return (
        f'\n[[scaling]]\ngenerator = "{scaling.generator}"\nn_problems = {scaling.n_problems}\n'
        f"{auc}points = [\n{points}]\n"
    )


def _point(point: Point) -> str:
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in asdict(point).items())


def _golden_table(golden: Golden) -> str:
    steps = "".join(f"  {_string(step)},\n" for step in golden.steps)
    return (
        f"\n[[golden]]\nproblem = {_string(golden.problem)}\nsteps = [\n{steps}]\n"
        f"scores = {list(golden.scores)!r}\ntolerance = {golden.tolerance!r}\n"
    )


def _string(text: str) -> str:
    # A JSON string without surrogate escapes is a TOML basic string, but for one control character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


__all__ = [
    "EXAMPLES",
    "TOLERANCE",
    "Vector",
    "make_golden",
    "read_vectors",
    "with_calibration",
    "with_golden",
    "with_scaling",
]
