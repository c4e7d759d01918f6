# SPDX-License-Identifier: Apache-2.0
"""The engine against llama-server and llama-cpp-python's server: same kernels, same model, same settings, in turn.

In each round all servers are started, side by side, and loaded in turns, in changing order; what is compared is
compared within a round, and the median over the rounds is reported with the smallest and the largest. ``README.md``
says what each row means and what keeps the comparison fair.

Writes ``results/engine.json`` and ``results/engine.png`` beside this file.

Usage: ``python bench/engine.py [--quick] [--models NAME,...|all] [--only SCENARIO,...] [--rounds 3] [--profile]``
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn, get_args

import gguf
from tqdm import tqdm

import inside
import profile_step
import report
from adyton_attestation.simulation.warning import SimulatedAttestationWarning
from adyton_host.catalog import choose
from adyton_protocol.digests import Digest
from adyton_protocol.model_identity import ModelPin
from appliance_process import ROOT
from generator import Way
from peers import KvType, Peer, PeerName, Settings, sealed, started
from random_models import NAMES, random_model
from scenarios import Figures, Prompts, Sizes, Trained, calibrate, decode, scenarios

RESULTS: Final = ROOT / "bench" / "results"
SHIPPED: Final = "shipped"
DEFAULT_MODELS: Final = (SHIPPED, "135m-49k-q8_0", "135m-128k-q4_0", "1b-128k-q4_0")
PYTHON_SERVER_SCENARIO: Final = "decode-8"
KV_CELLS: Final = 16_384
_SETTLE_S: Final = 0.4
"""After a load: longer than our engine waits before it overwrites its KV buffers."""


def model_file(name: str) -> tuple[Path, ModelPin, int]:
    """A model's file, what it holds and its context: shipped, or made here."""
    if name == SHIPPED:
        shipped = choose(ROOT / "models" / "catalog.toml", None)
        return (
            shipped.path,
            ModelPin(content=Digest(shipped.content), weights=Digest(shipped.weights)),
            shipped.n_ctx,
        )
    made = random_model(name)
    return made.path, made.pin, made.n_ctx


def model_settings(name: str, arguments: argparse.Namespace) -> Settings:
    """What every server is told about a model."""
    path, pin, n_ctx = model_file(name)
    return Settings(
        path=path,
        pin=pin,
        n_ctx=n_ctx,
        n_cells=KV_CELLS,
        threads=arguments.threads,
        kv_type_v=arguments.kv_type_v,
        peer_way=arguments.client,
        unified=not arguments.llama_server_split_kv,
    )


def trained(name: str, settings: Settings) -> Trained | None:
    """The shipped model would end its answers; those with random weights cannot."""
    if name != SHIPPED:
        return None
    field = gguf.GGUFReader(settings.path).fields["tokenizer.ggml.eos_token_id"]
    return Trained(end_token_id=int(field.contents()))


def _turns(names: list[PeerName], number: int) -> list[PeerName]:
    """Each turn begins with another server and goes round in the other direction."""
    shift = number % len(names)
    turned = names[shift:] + names[:shift]
    return turned if number % 2 else turned[::-1]


class Measurement:
    """One model on all servers, round by round.

    Every round starts the servers anew: where the weights come to lie in memory alone makes a difference of some
    percent, and lasts as long as the process.
    """

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self._name = name
        self._arguments = arguments
        self._settings = model_settings(name, arguments)
        self._scenarios = {key: run for key, run in scenarios().items() if key in arguments.only}
        self._tools: tuple[Prompts, Sizes] | None = None
        self._cells: dict[str, dict[str, list[Figures]]] = {key: {} for key in self._scenarios}
        self._memory: dict[str, dict[str, list[dict[str, int]]]] = {"idle": {}, "loaded": {}}
        self._load: list[float] = []

    def run(self) -> dict[str, object]:
        """Measure everything; return figures by scenario, server and round."""
        steps = len(self._scenarios) * self._arguments.rounds
        with tqdm(
            total=steps, desc=f"{self._name:>16}", unit="cell", leave=False, disable=self._arguments.json
        ) as bar:
            began_s = time.monotonic()
            for number in range(self._arguments.rounds):
                self._round(number, bar)
                # With slow models a round takes minutes, and two are enough to see whether they agree.
                spent_s = time.monotonic() - began_s
                if number >= 1 and spent_s * (number + 2) / (number + 1) > 60 * self._arguments.minutes:
                    break
        return {
            "model": self._name,
            "settings": {**dataclasses.asdict(self._settings), "path": self._settings.path.name},
            "sizes": dataclasses.asdict(self._tools[1]) if self._tools else {},
            "load_by_round": self._load,
            "cells": self._cells,
            "memory": self._memory,
        }

    def _round(self, number: int, bar: "tqdm[NoReturn]") -> None:
        self._load.append(os.getloadavg()[0])
        with contextlib.ExitStack() as stack:
            bar.set_postfix_str("starting")
            peers = {
                name: stack.enter_context(started(name, self._settings))
                for name in _turns(list(self._arguments.peers), number)
            }
            self._note_memory("idle", peers)
            prompts, sizes = self._calibrated(peers[self._arguments.peers[0]])
            for peer in peers.values():
                decode(peer, prompts, dataclasses.replace(sizes, decode_tokens={8: 8}), clients=8)
            for turn, (scenario, run) in enumerate(self._scenarios.items()):
                bar.set_postfix_str(scenario)
                for name in _turns(list(peers), number + turn):
                    if name != "python-server" or scenario == PYTHON_SERVER_SCENARIO:
                        time.sleep(_SETTLE_S)
                        figures = run(peers[name], prompts, sizes)
                        self._cells[scenario].setdefault(name, []).append(figures)
                bar.update()
            self._note_memory("loaded", peers)

    def _calibrated(self, peer: Peer) -> tuple[Prompts, Sizes]:
        """Prompts and sizes, the same in every round."""
        if self._tools is None:
            self._tools = calibrate(
                peer,
                n_ctx=self._settings.n_ctx,
                trained=trained(self._name, self._settings),
                seconds=self._arguments.seconds,
                full=self._arguments.full,
            )
        return self._tools

    def _note_memory(self, when: str, peers: Mapping[PeerName, Peer]) -> None:
        for name, peer in peers.items():
            self._memory[when].setdefault(name, []).append(dataclasses.asdict(peer.memory()))


def profile_model(name: str, arguments: argparse.Namespace) -> None:
    """Print where the time of our engine's steps goes, with one client and with eight."""
    settings = model_settings(name, arguments)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adyton-profile-")))
        timers = directory / "timers.json"
        program = inside.host_program("timers", timers)
        peer = stack.enter_context(sealed(settings, directory, program=program))
        prompts, sizes = calibrate(
            peer, n_ctx=settings.n_ctx, trained=trained(name, settings), seconds=arguments.seconds, full=False
        )
        threads = profile_step.Threads(peer.processes["enclave"])
        missing: list[str] = []
        for clients in (1, 8):
            before, threads_before = inside.read(timers), threads.now()
            figures = decode(peer, prompts, sizes, clients=clients)
            after, threads_after = inside.read(timers), threads.now()
            cpu_s = {key.removeprefix("cpu_s_"): figures[key] for key in figures if key.startswith("cpu_s_")}
            cpu_s |= {
                f"  {thread}": value - threads_before.get(thread, 0.0)
                for thread, value in threads_after.items()
                if value > threads_before.get(thread, 0.0)
            }
            table = profile_step.profile_table(
                profile_step.difference(after["totals"], before["totals"]),
                tokens=int(figures["tokens"]),
                wall_s=figures["wall_s"],
                cpu_s=cpu_s,
            )
            print(f"\n{name}, {clients} client(s): {table}", flush=True)
            missing = after["missing"]
        if missing:
            print(f"not found, and so part of what calls them: {', '.join(missing)}")


def _names(known: tuple[str, ...] | list[str]) -> "type[argparse.Action]":
    """An option that takes names separated by commas, or ``all``."""

    class Names(argparse.Action):
        def __call__(
            self,
            parser: argparse.ArgumentParser,
            namespace: argparse.Namespace,
            values: object,
            option_string: str | None = None,
        ) -> None:
            given = list(known) if values == "all" else str(values).split(",")
            unknown = [name for name in given if name not in known]
            if unknown:
                parser.error(f"{option_string}: no {', '.join(unknown)}; there are {', '.join(known)}")
            setattr(namespace, self.dest, given)

    return Names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    everything = list(scenarios())
    peers: list[PeerName] = ["llama-server", "sealed", "plain", "python-server"]
    add = parser.add_argument
    add("--models", action=_names((SHIPPED, *NAMES)), default=list(DEFAULT_MODELS), help="names, or all")
    add("--only", action=_names(everything), default=everything, help="scenarios")
    add("--peers", action=_names(list(peers)), default=peers, help="servers; the first calibrates")
    add("--rounds", type=int, default=3, help="rounds at most; in each every server is loaded")
    add("--minutes", type=float, default=8.0, help="about how long a model may take; two rounds at least")
    add("--seconds", type=float, default=3.0, help="about how long one measurement takes")
    add("--quick", action="store_true", help="one round of short measurements with two models")
    add("--full", action="store_true", help="prompts of full length with slow models, too")
    add(
        "--threads",
        type=int,
        default=max(1, (os.cpu_count() or 2) - 1),
        help="compute threads of each server",
    )
    add("--kv-type-v", choices=get_args(KvType), default="q8_0", help="type of cached values; keys are f16")
    add("--client", choices=get_args(Way)[1:], default="httpx", help="how servers in the clear are reached")
    add("--llama-server-split-kv", action="store_true", help="let llama-server keep one KV buffer per slot")
    add("--profile", action="store_true", help="say where the time of our engine's steps goes, instead")
    add("--output", type=Path, default=RESULTS / "engine.json", help="results; the plot goes beside them")
    add("--json", action="store_true", help="print the results as JSON and nothing else")
    return parser


def main() -> int:
    """Measure, print the table, write JSON and plot."""
    arguments = _parser().parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 1.0
        if arguments.models == list(DEFAULT_MODELS):
            arguments.models = list(DEFAULT_MODELS[:2])
    warnings.simplefilter("ignore", SimulatedAttestationWarning)
    # Otherwise the servers would stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.profile:
        for name in arguments.models:
            profile_model(name, arguments)
        return 0
    started_s = time.monotonic()
    document: dict[str, object] = {
        "measures": "our engine over llama-server; ratios above 1 are in our favour",
        "machine": {"cpu_count": os.cpu_count(), "platform": platform.platform(), "cpu": _cpu_name()},
        "load_before": os.getloadavg()[0],
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "client": arguments.client,
        "models": [],
    }
    models: list[dict[str, object]] = []
    for name in arguments.models:
        models.append(Measurement(name, arguments).run())
        document |= {"models": models, "elapsed_s": round(time.monotonic() - started_s)}
        # After each model, so that an interrupted run leaves what it has.
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")
        if not arguments.json:
            print(report.table(models[-1]), flush=True)
    report.plot(models, arguments.output.with_suffix(".png"))
    if arguments.json:
        json.dump(document, sys.stdout)
    else:
        print(f"written: {arguments.output}, {arguments.output.with_suffix('.png')}")
    return 0


def _cpu_name() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor()


if __name__ == "__main__":
    raise SystemExit(main())
