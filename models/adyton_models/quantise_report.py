# SPDX-License-Identifier: Apache-2.0
"""What quantising cost and gained: size, speed, divergence and accuracy of each file against the original."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adyton_enclave.engine import EngineConfig
from adyton_enclave.engine.invariance import read_weights, why_inexact
from adyton_models.divergence import WINDOW_TOKENS, diverge, windows_of
from adyton_models.evaluation import Conditions, Evaluation, evaluate
from adyton_models.gguf_facts import ModelFacts
from adyton_models.intervals import bootstrap
from adyton_models.problem_sets import Question
from adyton_models.quantisation import Quantised, bits_per_number, stored_as
from adyton_models.serving import ServedModel
from adyton_models.speed import PROMPT_TOKENS, compare_speed

Stage = Callable[[str], Callable[[float], None]]
"""Given the name of a stage, returns what to call with the share of it that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        questions: For accuracy, and with their solutions for divergence where there is no text; may be empty.
        text: For divergence.
        text_tokens: At most so many of it.
        conditions: How problems are asked.
        threads: For problems and divergence; speed is measured with one.
        speed: Whether to measure it.
    """

    questions: Sequence[Question]
    text: str | None = field(default=None, repr=False)
    text_tokens: int = 4096
    conditions: Conditions = field(default_factory=Conditions)
    threads: int = 1
    speed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file; what was not measured is None.

    Attributes:
        name: How it is stored.
        reproducible: None, or why its answers may depend on the batch.
        fallbacks: Matrices stored otherwise than asked for.
        speed: Tokens per second and ratios to the original.
        divergence: From the original; None for itself.
        accuracy: pass@1 with its interval.
        difference: Of pass@1 to the original's: mean and 95 % interval of the paired difference over problems.
    """

    name: str
    file: str
    size_bytes: int
    bits_per_number: float
    types: Mapping[str, int]
    why_inexact: str | None
    fallbacks: Mapping[str, str]
    speed: Mapping[str, float] | None = None
    divergence: Mapping[str, Any] | None = None
    accuracy: Mapping[str, Any] | None = None
    difference: tuple[float, float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "name": self.name,
            "file": self.file,
            "size_bytes": self.size_bytes,
            "bits_per_number": round(self.bits_per_number, 3),
            "types": dict(self.types),
            "reproducible": self.why_inexact is None,
            "why_inexact": self.why_inexact,
            "fallbacks": dict(self.fallbacks),
            "speed": self.speed,
            "divergence": self.divergence,
            "accuracy": self.accuracy,
            "accuracy_difference": self.difference,
        }


def measure(source: ModelFacts, files: Sequence[Quantised], plan: Plan, stage: Stage) -> list[Row]:
    """Measure the original and every file made of it, the original first.

    Raises:
        AdytonError: A file cannot be served.
    """
    reference = source.paths[0]
    original = _examined(source, plan, stage(f"{stored_as(source)}: problems")) if plan.questions else None
    windows = _windows(source, plan) if plan.text is not None or plan.questions else []
    rows = [
        _row(
            stored_as(source),
            reference,
            source,
            {},
            accuracy=None if original is None else original.overall.as_json(),
        )
    ]
    for each in files:
        accuracy = difference = speed = divergence = None
        if original is not None:
            examined = _examined(each.facts, plan, stage(f"{each.target}: problems"))
            accuracy = examined.overall.as_json()
            paired = examined.shares - original.shares
            low, high = bootstrap(paired)
            difference = (float(paired.mean()), low, high)
        if windows:
            report = stage(f"{each.target}: divergence")
            divergence = diverge(reference, each.path, windows, threads=plan.threads, report=report).as_json()
        if plan.speed:
            report = stage(f"{each.target}: speed")
            prompt = min(PROMPT_TOKENS, source.n_ctx_train // 2)
            ours, theirs = compare_speed(reference, each.path, prompt_tokens=prompt, report=report)
            speed = theirs.as_json()
            if rows[0].speed is None:
                rows[0] = _row(
                    stored_as(source), reference, source, {}, accuracy=rows[0].accuracy, speed=ours.as_json()
                )
        rows.append(
            _row(
                each.target,
                each.path,
                each.facts,
                each.fallbacks,
                accuracy=accuracy,
                difference=difference,
                speed=speed,
                divergence=divergence,
            )
        )
    return rows


def _row(name: str, path: Path, facts: ModelFacts, fallbacks: Mapping[str, str], **measured: Any) -> Row:
    return Row(
        name=name,
        file=path.name,
        size_bytes=facts.size_bytes,
        bits_per_number=bits_per_number(facts),
        types=facts.types,
        why_inexact=why_inexact(read_weights(facts.model), EngineConfig()),
        fallbacks=fallbacks,
        **measured,
    )


def _served(facts: ModelFacts, threads: int) -> ServedModel:
    return ServedModel(facts.paths[0], n_ctx=facts.default_n_ctx, threads=threads)


def _examined(facts: ModelFacts, plan: Plan, report: Callable[[float], None]) -> Evaluation:
    with _served(facts, plan.threads) as model:
        return evaluate(
            model,
            plan.questions,
            plan.conditions,
            report=lambda done, _accuracy: report(done / len(plan.questions)),
        )


def _windows(facts: ModelFacts, plan: Plan) -> list[list[int]]:
    """Pieces of the text, or problems as the model reads them with their solutions, up to the wanted tokens."""
    with _served(facts, plan.threads) as model:
        if plan.text is not None:
            length = min(WINDOW_TOKENS, facts.n_ctx_train - 1)
            ids = model.model.llama.tokenize(plan.text, add_special=True, parse_special=False)
            return windows_of(ids[: plan.text_tokens], length)
        windows: list[list[int]] = []
        left = plan.text_tokens
        for question in plan.questions:
            solved = model.model.llama.tokenize_on(question.solution) if question.solution else []
            window = [*model.prompt(question.text), *solved][: min(left, facts.n_ctx_train - 1)]
            if len(window) > 1:
                windows.append(window)
                left -= len(window)
        return windows


def as_table(rows: Sequence[Row]) -> str:
    """Markdown that reads well as plain text, too."""
    header = [
        "type",
        "size",
        "bits",
        "prefill",
        "decode",
        "KL (nats)",
        "same first token",
        "accuracy",
        "difference",
        "reproducible",
    ]
    table = [header, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in table
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [_note(row) for row in rows if row.fallbacks]
    return "\n".join([*lines, *notes])


def _cells(row: Row) -> list[str]:
    speed, far, right = row.speed, row.divergence, row.accuracy
    return [
        row.name,
        f"{row.size_bytes / 1e6:,.1f} MB",
        f"{row.bits_per_number:.2f}",
        "" if speed is None else f"{speed['prefill_tokens_per_s']:.0f}/s ({speed['prefill_ratio']:.2f} x)",
        "" if speed is None else f"{speed['decode_tokens_per_s']:.0f}/s ({speed['decode_ratio']:.2f} x)",
        "" if far is None else f"{far['kl_mean']:.2g} (99 %: {far['kl_p99']:.2g})",
        "" if far is None else f"{far['top1_agreement']:.2%}",
        "" if right is None else f"{right['accuracy']:.1%} [{right['ci95'][0]:.1%}, {right['ci95'][1]:.1%}]",
        "" if row.difference is None else "{:+.1%} [{:+.1%}, {:+.1%}]".format(*row.difference),
        "yes" if row.why_inexact is None else "no",
    ]


def _note(row: Row) -> str:
    kinds: dict[str, list[str]] = {}
    for name, kind in row.fallbacks.items():
        kinds.setdefault(kind, []).append(name)
    said = "; ".join(f"{', '.join(names)} as {kind}" for kind, names in sorted(kinds.items()))
    return f"\n{row.name}: rows of these matrices do not fit its blocks, and are stored otherwise: {said}"
