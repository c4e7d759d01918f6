# SPDX-License-Identifier: Apache-2.0
"""Load time and peak memory of our way in (clear, split, sealed) against llama.cpp loading the same file by its path.

Every load is a process of its own. In each round all ways are measured once, in changing order; ratios are taken
within a round, and the median over the rounds is reported with the smallest and the largest.

- ``plain``: ``llama_model_load_from_file`` with mapping off, which is how an enclave has to load: the peer.
- ``mapped``: the same with mapping on, for information: it returns before the weights are read.
- ``clear``, ``split``, ``sealed``: our pipeline, the comparison with the pinned weights included.

Files are in the page cache, unless ``--cold`` drops them from it before each load. Peak memory is the process's own
(``VmHWM``), libraries and interpreter included, the same for all; pages of the page cache count for nobody but
``mapped``, whose mapping they are.

Usage: ``python bench/loading.py [--models NAME,...] [--rounds 7] [--cold] [--quick]``
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from llama_cpp import llama_cpp as _bindings
from tqdm import tqdm

from adyton_enclave.weights.model_file import ModelFile
from adyton_enclave.weights.stream import CookieStream
from adyton_enclave.weights.terms import SealedTerms
from adyton_models.sealing import Sealing, seal_model
from adyton_protocol.digests import Digest
from adyton_protocol.model_identity import ModelPin
from adyton_protocol.sealed_model import KEY_BYTES, ModelKey
from appliance_process import ROOT
from random_models import NAMES, random_model
from split_model import split_model

RESULTS: Final = ROOT / "bench" / "results"
DEFAULT_MODELS: Final = ("135m-49k-q8_0", "1b-49k-q8_0", "1b-128k-q4_0")
WAYS: Final = ("plain", "mapped", "clear", "split", "sealed")
OURS: Final = ("clear", "split", "sealed")
PARTS: Final = 3
MOST_TIME: Final = 1.3
MOST_MEMORY: Final = 1.1
_KEY: Final = bytes(KEY_BYTES)
"""Of no secrecy: what is sealed here are random numbers."""

_lib: Any = _bindings


@_lib.llama_log_callback  # type: ignore[untyped-decorator]  # a ctypes function type
def _discard(_level: int, _text: bytes, _user_data: int | None) -> None:
    """llama.cpp reports at length."""


# --- One load, in a process of its own -------------------------------------------------------------------


def _params(*, mapped: bool) -> Any:
    params = _lib.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = True
    params.load_mode = _lib.LLAMA_LOAD_MODE_MMAP if mapped else _lib.LLAMA_LOAD_MODE_NONE
    params.lazy_mode = _lib.LLAMA_LAZY_MODE_OFF
    return params


def _load_plain(job: Mapping[str, Any], *, mapped: bool) -> bool:
    return bool(_lib.llama_model_load_from_file(job["paths"][0].encode(), _params(mapped=mapped)))


def _load_ours(job: Mapping[str, Any]) -> bool:
    key = ModelKey(_KEY)
    terms = SealedTerms(key_id=key.key_id) if job["way"] == "sealed" else None
    pin = ModelPin(content=Digest(job["content"]), weights=Digest(job["weights"]))
    with ModelFile.open(job["paths"], pin, key=key, terms=terms) as file:
        with CookieStream(file) as stream:
            model = _lib.llama_model_load_from_file_ptr(stream.pointer, _params(mapped=False))
            stream.check()
        file.finish()
    return bool(model)


def child(job: Mapping[str, Any]) -> None:
    """Load once and print what it took."""
    _lib.llama_log_set(_discard, ctypes.c_void_p(0))
    ways: dict[str, Callable[[], bool]] = {
        "plain": lambda: _load_plain(job, mapped=False),
        "mapped": lambda: _load_plain(job, mapped=True),
    }
    run = ways.get(job["way"], lambda: _load_ours(job))
    # What libraries set up at their first use is nobody's load.
    _lib.llama_backend_init()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    loaded = run()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"loaded": loaded, "wall_s": wall_s, "cpu_s": cpu_s, "peak_bytes": peak_kib * 1024}))


# --- Rounds ----------------------------------------------------------------------------------------------


def _files(name: str) -> tuple[dict[str, list[Path]], ModelPin]:
    """The packings of a model, made once and kept beside it."""
    made = random_model(name)
    sealed = made.path.with_suffix(f".{made.pin.content[7:19]}.sealed")
    if not sealed.exists():
        seal_model(Sealing(files=(made.path,), content=made.pin.content), ModelKey(_KEY), sealed)
    clear = [made.path]
    return {
        "plain": clear,
        "mapped": clear,
        "clear": clear,
        "split": split_model(made.path, PARTS),
        "sealed": [sealed],
    }, made.pin


def _touch(paths: list[Path], *, cold: bool) -> None:
    """Have the files in the page cache, or out of it."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if cold:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while os.read(descriptor, 1 << 24):
                    pass
        finally:
            os.close(descriptor)


def _load(way: str, paths: list[Path], pin: ModelPin, *, cold: bool) -> dict[str, float]:
    _touch(paths, cold=cold)
    job = {"way": way, "paths": list(map(str, paths)), "content": pin.content, "weights": pin.weights}
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(job)], capture_output=True, text=True, check=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    if not figures["loaded"]:
        raise SystemExit(f"llama.cpp could not load {paths[0]} ({way})")
    return figures


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds of one model."""
    files, pin = _files(name)
    rounds: list[dict[str, dict[str, float]]] = []
    with tqdm(
        total=arguments.rounds * len(WAYS), desc=f"{name:>16}", unit="load", leave=False, disable=None
    ) as bar:
        for number in range(arguments.rounds):
            shift = number % len(WAYS)
            order = (*WAYS[shift:], *WAYS[:shift])[:: 1 if number % 2 else -1]
            figures = {}
            for way in order:
                bar.set_postfix_str(way)
                figures[way] = _load(way, files[way], pin, cold=arguments.cold)
                bar.update()
            rounds.append(figures)
    size_bytes = files["plain"][0].stat().st_size
    return {"model": name, "size_bytes": size_bytes, "load_average": os.getloadavg()[0], "rounds": rounds}


def ratios(result: Mapping[str, Any], way: str, figure: str) -> tuple[float, float, float]:
    """A way over the peer: median, smallest and largest over the rounds; less is better."""
    values = [each[way][figure] / each["plain"][figure] for each in result["rounds"]]
    return statistics.median(values), min(values), max(values)


def table(result: Mapping[str, Any]) -> str:
    """Time and memory of every way; ratios against ``plain``, and whether ours hold their aims."""
    load = f"load average {result['load_average']:.1f}"
    lines = [
        f"\n{result['model']}: {result['size_bytes'] / 1e6:.0f} MB, {len(result['rounds'])} rounds, {load}",
        f"  {'way':8} {'time':>8}  {'over plain':>18}  {'CPU':>7}  {'peak':>9}  {'over plain':>10}",
    ]
    for way in WAYS:
        wall_s, cpu_s, peak = (
            statistics.median(each[way][figure] for each in result["rounds"])
            for figure in ("wall_s", "cpu_s", "peak_bytes")
        )
        time_ratio, low, high = ratios(result, way, "wall_s")
        memory_ratio = ratios(result, way, "peak_bytes")[0]
        aim = ""
        if way in OURS:
            held = time_ratio <= MOST_TIME and memory_ratio <= MOST_MEMORY
            aim = "holds" if held else f"misses {MOST_TIME} x time, {MOST_MEMORY} x memory"
        lines.append(
            f"  {way:8} {wall_s:7.3f}s  {time_ratio:5.2f} [{low:.2f}-{high:.2f}]  {cpu_s:6.3f}s  "
            f"{peak / 2**20:6.0f}MiB  {memory_ratio:10.2f}  {aim}"
        )
    return "\n".join(lines)


def _names(text: str) -> list[str]:
    names = list(NAMES) if text == "all" else text.split(",")
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return names


def main() -> int:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--models", type=_names, default=list(DEFAULT_MODELS), help="names, or all")
    parser.add_argument("--rounds", type=int, default=7, help="each way once in each")
    parser.add_argument(
        "--cold", action="store_true", help="drop the files from the page cache before each load"
    )
    parser.add_argument("--quick", action="store_true", help="three rounds of the smallest model")
    parser.add_argument("--output", type=Path, default=RESULTS / "loading.json", help="results")
    parser.add_argument("--json", action="store_true", help="print the results as JSON and nothing else")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(json.loads(arguments.child))
        return 0
    if arguments.quick:
        arguments.models, arguments.rounds = [DEFAULT_MODELS[0]], 3
    document: dict[str, Any] = {
        "measures": "loading, over llama.cpp's own by path without mapping; ratios below 1 are in our favour",
        "machine": {"cpu_count": os.cpu_count(), "platform": platform.platform()},
        "cold": arguments.cold,
        "models": [],
    }
    for name in arguments.models:
        result = measure(name, arguments)
        result["ratios"] = {
            way: {figure: ratios(result, way, figure) for figure in ("wall_s", "peak_bytes")} for way in WAYS
        }
        document["models"].append(result)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")
        if not arguments.json:
            print(table(result), flush=True)
    if arguments.json:
        json.dump(document, sys.stdout)
    else:
        print(f"\nwritten: {arguments.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
