# SPDX-License-Identifier: Apache-2.0
"""``adyton-host tune``: measures this machine with one model, shows what it found, writes what is best."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from adyton_host.catalog import CatalogModel, choose, default_catalog
from adyton_host.enclave_config import read_overrides
from adyton_host.probe import Probe
from adyton_host.tune_report import CONFIRMED, WEIGHTS, Outcome, as_json, fragment, report
from adyton_host.tuning import (
    Row,
    Sample,
    Search,
    Settings,
    Unmeasurable,
    Workload,
    batch_sizes,
    cache_types,
    thread_counts,
)
from adyton_protocol.errors import ConfigError

DESCRIPTION: Final = """\
Measure how fast this machine answers with one model under different engine settings, and say which are best.
Nothing that runs is touched, and nothing is changed unless --write is given. Stop other work first: the search
compares side by side and so bears noise, but the machine's own pace is what it measures."""

EXAMPLES: Final = """\
examples:
  adyton-host tune                                      the catalog's default model, one minute
  adyton-host tune my.gguf --streams 1 --seconds 120    a file; tuned for one client at a time
  adyton-host tune --quantize Q8_0,Q4_0                 would other weights be faster? (temporary files)
  adyton-host tune --write engine.toml && adyton-host up --simulate --enclave-config engine.toml

Only settings under which answers stay reproducible, bit for bit, can win; --allow-inexact lifts that. Weights
never win: they are another model with other answers, so they are shown for you to judge."""

DEFAULT_STREAMS: Final = 8
DEFAULT_PROMPT_TOKENS: Final = 256
DEFAULT_ANSWER_TOKENS: Final = 128
DEFAULT_SECONDS: Final = 60
_DEFAULT_MAX_SEQUENCES: Final = 32
_SAMPLE_STEPS: Final = 12
_SAMPLES_WANTED: Final = 40
_LEAST_PROMPT_TOKENS: Final = 16
_START: Final[Settings] = {
    "threads": 0,
    "n_batch": 512,
    "n_ubatch": 512,
    "kv_type_k": "f16",
    "kv_type_v": "q8_0",
}
_BAR_CHARS: Final = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a name of the catalog, or a GGUF file")
    parser.add_argument("--catalog", type=Path, metavar="FILE", help="catalog (default: models/catalog.toml)")
    parser.add_argument(
        "--enclave-config", type=Path, metavar="FILE", help="settings to start from (default: the defaults)"
    )
    workload = parser.add_argument_group("what to be fast at")
    for name, default, text in (
        ("streams", DEFAULT_STREAMS, "answers at the same time"),
        ("prompt-tokens", DEFAULT_PROMPT_TOKENS, "length of a prompt"),
        ("answer-tokens", DEFAULT_ANSWER_TOKENS, "length of an answer"),
    ):
        workload.add_argument(
            f"--{name}", type=_positive, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
    search = parser.add_argument_group("how to search")
    search.add_argument(
        "--seconds", type=_positive, default=DEFAULT_SECONDS, metavar="S", help="time (default: %(default)s)"
    )
    search.add_argument(
        "--all-processors",
        action="store_true",
        help="leave none to the relay; fair only without a relay here",
    )
    search.add_argument(
        "--allow-inexact", action="store_true", help="let settings win whose answers depend on the batch"
    )
    search.add_argument(
        "--compare", type=Path, action="append", default=[], metavar="GGUF", help="other weights"
    )
    search.add_argument(
        "--quantize", default="", metavar="TYPE,TYPE", help="make and measure such weights, too"
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the best as an --enclave-config FILE"
    )
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def tune(arguments: argparse.Namespace) -> int:
    """Run the command; returns 0, or raises ConfigError."""
    model = _find(arguments)
    overrides = {} if arguments.enclave_config is None else read_overrides(arguments.enclave_config)
    for path in (*arguments.compare, *([arguments.write.parent] if arguments.write else [])):
        if not path.exists():
            raise ConfigError(f"{path} does not exist")
    with contextlib.ExitStack() as stack:
        probes = {model.name: stack.enter_context(_loaded(model))}
        for name, path in stack.enter_context(_variants(arguments, model, probes[model.name])):
            probes[name] = stack.enter_context(_loaded(replace(model, path=path, content="", weights="")))
        outcome = _search(arguments, model, probes, overrides)
    if arguments.json:
        print(json.dumps(as_json(outcome)))
    else:
        print(report(outcome))
    if arguments.write:
        arguments.write.write_text(fragment(outcome, overrides), encoding="utf-8")
        print(f"wrote {arguments.write}", file=sys.stderr)
    return 0


def _find(arguments: argparse.Namespace) -> CatalogModel:
    name = arguments.model
    if name is not None and Path(name).is_file():
        path = Path(name).absolute()
        return CatalogModel(
            name=path.stem,
            path=path,
            content="",
            weights="",
            license="unspecified",
            n_ctx=0,
            role="generator",
            sampling={},
        )
    if name is not None and name.endswith(".gguf"):
        raise ConfigError(f"there is no file {name}")
    chosen = choose(arguments.catalog if arguments.catalog is not None else default_catalog(), name)
    if chosen.key_id is not None or chosen.more_paths:
        raise ConfigError(
            f"{chosen.name!r} is sealed or split; tune with the GGUF file itself, or one of its shape"
        )
    return chosen


@contextlib.contextmanager
def _loaded(model: CatalogModel) -> Iterator[Probe]:
    with Probe() as probe:
        pin = {"content": model.content, "weights": model.weights} if model.content else {}
        probe.ask("load", path=str(model.path), **pin)
        yield probe


@contextlib.contextmanager
def _variants(
    arguments: argparse.Namespace, model: CatalogModel, probe: Probe
) -> Iterator[list[tuple[str, Path]]]:
    """Other weights to compare; those that have to be made last as long as the context."""
    found = [(path.stem, path.absolute()) for path in arguments.compare]
    with tempfile.TemporaryDirectory(prefix="adyton-tune-") as directory:
        for kind in filter(None, arguments.quantize.split(",")):
            target = Path(directory) / f"{kind}.gguf"
            _say(f"quantising to {kind} ...")
            probe.ask("quantize", path=str(model.path), target=str(target), type=kind)
            found.append((kind, target))
        yield found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _engine(settings: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in settings.items() if name != WEIGHTS}


def _search(
    arguments: argparse.Namespace,
    model: CatalogModel,
    probes: Mapping[str, Probe],
    overrides: Mapping[str, object],
) -> Outcome:
    given = overrides.get("engine", {})
    start: Settings = (
        {**_START, **{k: v for k, v in given.items() if k in _START}} if isinstance(given, dict) else _START
    )
    fixed = {k: v for k, v in given.items() if k not in start} if isinstance(given, dict) else {}
    limits = overrides.get("limits", {})
    most = (
        limits.get("max_sequences", _DEFAULT_MAX_SEQUENCES)
        if isinstance(limits, dict)
        else _DEFAULT_MAX_SEQUENCES
    )
    max_sequences = max(most, arguments.streams)
    workload = Workload(
        streams=arguments.streams,
        prompt_tokens=arguments.prompt_tokens,
        answer_tokens=arguments.answer_tokens,
    )
    clock = time.monotonic
    begun_s = clock()
    prompt_tokens = workload.prompt_tokens

    def measure(settings: Settings) -> Sample:
        try:
            answer = probes[str(settings.get(WEIGHTS, model.name))].ask(
                "measure",
                engine={**_without_own(fixed), **_engine(settings)},
                streams=workload.streams,
                prompt_tokens=prompt_tokens,
                answer_tokens=min(_SAMPLE_STEPS, workload.answer_tokens),
                max_sequences=max_sequences,
            )
        except ConfigError as error:
            raise Unmeasurable(str(error)) from error
        return _sample(answer)

    bar = _Bar(begun_s, arguments.seconds, clock)
    try:
        bar.show("a first look")
        # One sample must not take a large part of the time: then the prompt is cut, which is said in the table.
        while True:
            sampled_s = clock()
            measure(start)
            spent_s = clock() - sampled_s
            if spent_s * _SAMPLES_WANTED <= arguments.seconds or prompt_tokens <= _LEAST_PROMPT_TOKENS:
                break
            prompt_tokens = max(_LEAST_PROMPT_TOKENS, prompt_tokens // 2)
        search = Search(
            workload=workload,
            measure=measure,
            clock=clock,
            progress=bar.show,
            allow_inexact=arguments.allow_inexact,
        )
        rows, best = _stages(search, start, arguments, max_sequences, begun_s)
        weights = [{WEIGHTS: name} for name in probes if name != model.name]
        if weights:
            rows += search.stage(WEIGHTS, {**best, WEIGHTS: model.name}, weights, begun_s + arguments.seconds)
    except Unmeasurable as error:
        raise ConfigError(f"the starting settings cannot be measured: {error}") from error
    finally:
        bar.clear()
    return _outcome(model, workload, rows, start, best, probes[model.name])


def _without_own(fixed: Mapping[str, object]) -> dict[str, object]:
    """Settings of the operator's that are not varied, without those that a measurement sizes itself."""
    return {k: v for k, v in fixed.items() if k in {"flash_attention", "batch_invariant", "prefill_tokens"}}


def _stages(
    search: Search, start: Settings, arguments: argparse.Namespace, max_sequences: int, begun_s: float
) -> tuple[list[Row], Settings]:
    processors = len(os.sched_getaffinity(0))
    counts = thread_counts(processors, all_processors=arguments.all_processors)
    # What 0 stands for is a candidate already: it is the setting in force.
    resolved = max(1, processors - 1)
    stages: tuple[tuple[str, list[Settings], float], ...] = (
        ("threads", [{"threads": count} for count in counts if count != resolved or start["threads"]], 0.3),
        ("batch sizes", batch_sizes(max_sequences, search.workload.prompt_tokens), 0.55),
        ("cache types", cache_types(allow_inexact=arguments.allow_inexact), 0.7),
    )
    rows: list[Row] = []
    best = start
    for name, changes, share in stages:
        found = search.stage(name, best, changes, begun_s + share * arguments.seconds)
        best = next(row.settings for row in found if row.chosen)
        rows += found
    if best != start:
        # What won stage by stage has to win as a whole, against where it all began.
        found = search.stage(CONFIRMED, start, [best], begun_s + 0.85 * arguments.seconds)
        best = next(row.settings for row in found if row.chosen)
        rows += found
    return rows, best


def _sample(answer: Mapping[str, object]) -> Sample:
    prefill, step, why = answer.get("prefill_token_s"), answer.get("step_s"), answer.get("why_inexact")
    if not isinstance(prefill, float) or not isinstance(step, float):
        raise ConfigError("the measuring process gave no times")
    return Sample(prefill_token_s=prefill, step_s=step, why_inexact=None if why is None else str(why))


def _outcome(
    model: CatalogModel, workload: Workload, rows: list[Row], start: Settings, best: Settings, probe: Probe
) -> Outcome:
    chosen = [row for row in rows if row.chosen and row.stage != WEIGHTS]
    gain = chosen[-1].ratio if chosen[-1].stage == CONFIRMED else 1.0
    identities = tuple(
        str(
            probe.ask(
                "identity",
                name=model.name,
                n_ctx=model.n_ctx or 1,
                sampling=dict(model.sampling),
                engine={name: settings[name] for name in ("kv_type_k", "kv_type_v")},
            )["identity"]
        )
        for settings in (start, best)
    )
    return Outcome(
        model=model.name,
        workload=workload,
        rows=tuple(rows),
        start=start,
        best=best,
        gain=gain,
        why_inexact=chosen[-1].samples[0].why_inexact,
        identities=(identities[0], identities[1]),
    )


class _Bar:
    """Progress on standard error, drawn over itself where that is a terminal, and silent elsewhere."""

    def __init__(self, begun_s: float, seconds: float, clock: Callable[[], float]) -> None:
        self._begun_s = begun_s
        self._seconds = seconds
        self._clock = clock
        self._shows = sys.stderr.isatty()

    def show(self, what: str) -> None:
        """Draw."""
        if self._shows:
            spent_s = self._clock() - self._begun_s
            done = min(_BAR_CHARS, int(_BAR_CHARS * spent_s / self._seconds))
            bar = "#" * done + "." * (_BAR_CHARS - done)
            sys.stderr.write(f"\r[{bar}] {spent_s:3.0f} of {self._seconds} s  {what:<12}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take it off the screen."""
        if self._shows:
            sys.stderr.write("\r\x1b[K")
