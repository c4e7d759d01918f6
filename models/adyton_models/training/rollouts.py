# SPDX-License-Identifier: Apache-2.0
"""Labels by rollouts, after Math-Shepherd (arXiv 2312.08935): a line is as good as what can still be made of it.

From behind each line of a sampled solution the generator goes on several times; the share of endings with the right
answer is the line's value. That needs answers and no checker of steps, and it is noisy: a wrong line is called good
when an ending is right by luck or by repair, and a right line bad when the generator cannot finish from there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adyton_models.tasks.checker import check_answer, label_steps
from adyton_models.tokenizer import Tokenizer
from adyton_models.training.architecture import Transformer
from adyton_models.training.sampled import SampledProblem, lines_of, read_samples
from adyton_models.training.sampling import Draw, continue_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """A beginning of a solution to go on from."""

    owner: int
    solution: int
    line: int
    text: str


def _starts(sampled: Sequence[SampledProblem]) -> list[_Start]:
    """Each beginning that ends before the last line; the last is judged as it is."""
    starts: list[_Start] = []
    for owner, each in enumerate(sampled):
        for solution, text in enumerate(each.solutions):
            lines = lines_of(text)
            starts += [
                _Start(
                    owner=owner,
                    solution=solution,
                    line=at,
                    text="".join(f" {line}\n" for line in lines[: at + 1]),
                )
                for at in range(len(lines) - 1)
            ]
    return starts


def roll_out(
    model: Transformer, sampled: Sequence[SampledProblem], how: Draw, *, rollouts: int, seed: int
) -> list[SampledProblem]:
    """The same solutions, with the share of `rollouts` continuations behind each line that end right."""
    tokenizer = Tokenizer()
    shares = [[[0.0] * len(lines_of(text)) for text in each.solutions] for each in sampled]
    for owner, each in enumerate(sampled):
        for solution, text in enumerate(each.solutions):
            if shares[owner][solution]:
                shares[owner][solution][-1] = float(check_answer(each.facts(), text))
    starts = _starts(sampled)
    prompts = [
        [*tokenizer.prompt(sampled[start.owner].problem), *tokenizer.encode_known(start.text)]
        for start in starts
    ]
    endings = continue_tokens(model, tokenizer, prompts, how, copies=rollouts, seed=seed) if starts else []
    for start, written in zip(starts, endings, strict=True):
        facts = sampled[start.owner].facts()
        right = sum(check_answer(facts, start.text + tokenizer.decode(ids)) for ids in written)
        shares[start.owner][start.solution][start.line] = right / rollouts
    return [
        replace(each, shares=tuple(map(tuple, of_problem)))
        for each, of_problem in zip(sampled, shares, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRun:
    """How many problems of a file are rolled out, how often from each line, and how many at once."""

    problems: int
    rollouts: int = 4
    batch: int = 12


def roll_out_file(
    model: Transformer,
    source: Path,
    out: Path,
    how: Draw,
    run: RolloutRun,
    report: Callable[[int], None] = lambda _done: None,
) -> None:
    """Bring `out` to `run.problems` lines: those of `source` with shares of rollouts; goes on where it was."""
    wanted = read_samples(source)[: run.problems]
    done = read_samples(out) if out.exists() else []
    out.write_text("".join(each.as_line() for each in done), encoding="utf-8")
    with out.open("a", encoding="utf-8") as file:
        for start in range(len(done), len(wanted), run.batch):
            part = wanted[start : start + run.batch]
            for each in roll_out(model, part, how, rollouts=run.rollouts, seed=start):
                file.write(each.as_line())
            file.flush()
            report(start + len(part))


def label_noise(sampled: Sequence[SampledProblem]) -> dict[str, float]:
    """How often rollouts and the checker disagree about a line, by what the checker says."""
    called_bad = called_good = good = bad = 0
    for each in sampled:
        for text, shares in zip(each.solutions, each.shares, strict=True):
            for label, share in zip(label_steps(each.facts(), text), shares, strict=True):
                good += label
                bad += not label
                called_bad += label and share == 0
                called_good += (not label) and share > 0
    return {
        "lines": good + bad,
        "right_called_bad": round(called_bad / max(good, 1), 4),
        "wrong_called_good": round(called_good / max(bad, 1), 4),
    }
