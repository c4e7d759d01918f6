# SPDX-License-Identifier: Apache-2.0
"""Where the time of our engine's steps goes, in microseconds: each part of a step, and of each token's way out.

The appliance runs as usual, but its enclave is started through ``inside.py``, which puts timers around the functions
named here. ``engine.py --profile`` prints the table. Timers cost about a microsecond a call.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import psutil

from timers import Point

_ENGINE: Final = "adyton_enclave.engine."
_API: Final = "adyton_enclave.api."
STEP: Final = "llama_decode"
STEP_POINTS: Final = (
    Point("wait, take in requests", _ENGINE + "engine", "Engine._take_in"),
    Point("sweep", _ENGINE + "lane", "Lane.sweep"),
    Point("plan", _ENGINE + "scheduler", "Scheduler.plan"),
    Point("fill batch", _ENGINE + "runner", "BatchRunner.run"),
    Point(STEP, _ENGINE + "llama", "LlamaContext.decode"),
    Point("logits", _ENGINE + "llama", "LlamaContext.logits"),
    Point("cells in order", _ENGINE + "kv_cache", "OrderedKvCache.prepare"),
    Point("cells in order", _ENGINE + "kv_cache", "OrderedKvCache.placed"),
    Point("book", _ENGINE + "scheduler", "Scheduler.advance"),
    Point("draw", _ENGINE + "drawing", "Drawer.draw"),
    Point("accept", _ENGINE + "lane", "Lane._draw"),
    Point("erase", _ENGINE + "lane", "Lane.erase"),
    Point("detokenise", _ENGINE + "detokenizer", "TextAssembler.push"),
    Point("deliver", _ENGINE + "engine", "Engine._deliver"),
    Point("ring", _ENGINE + "doorbell", "Doorbell.ring"),
    Point("rest of the step", _ENGINE + "engine", "Engine._step"),
)
TOKEN_POINTS: Final = (
    Point("receive", _ENGINE + "doorbell", "Doorbell._serve"),
    Point("merge", _ENGINE + "generation", "Mailbox._keep"),
    Point("word and encode (JSON)", _API + "chat", "ChatPresenter.delta"),
    Point("receipt digest", "adyton_enclave.receipts", "OpenReceipt.response_data"),
    Point("pad", "adyton_enclave.pacing", "pad_chunk"),
    Point("frame (BHTTP)", "adyton_protocol.bhttp", "ResponseWriter.content"),
    Point("seal", "adyton_protocol.ohttp", "ResponseSealer.push"),
    Point("write to socket", "asyncio.selector_events", "_SelectorSocketTransport.write"),
)

Totals = Mapping[str, Sequence[int]]


class Threads:
    """CPU time of each thread of a process, in s."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process

    def now(self) -> dict[str, float]:
        """By thread; the first is the event loop's, as it is the process's own."""
        return {
            f"event loop ({thread.id})" if thread.id == self._process.pid else f"thread {thread.id}": (
                thread.user_time + thread.system_time
            )
            for thread in self._process.threads()
        }


def difference(after: Totals, before: Totals) -> dict[str, list[int]]:
    """What was added between two snapshots."""
    zero = [0, 0, 0]
    return {
        label: [b - a for a, b in zip(before.get(label, zero), values, strict=True)]
        for label, values in after.items()
    }


def _lines(points: Sequence[Point], totals: Totals, per: int, unit: str) -> list[str]:
    labels = list(dict.fromkeys(point.label for point in points))
    lines = [f"  {'':26} {'wall µs/' + unit:>14} {'CPU µs/' + unit:>14} {'calls/' + unit:>14}"]
    for label in labels:
        calls, wall_ns, cpu_ns = totals.get(label, [0, 0, 0])
        lines.append(
            f"  {label:26} {wall_ns / 1000 / per:>14.1f} {cpu_ns / 1000 / per:>14.1f} {calls / per:>14.2f}"
        )
    return lines


def profile_table(totals: Totals, *, tokens: int, wall_s: float, cpu_s: Mapping[str, float]) -> str:
    """The table of one load.

    Args:
        totals: Calls, wall ns and CPU ns of each label.
        tokens: Tokens generated.
        wall_s: Time of the load.
        cpu_s: CPU time of processes and threads over the load.
    """
    steps = max(1, totals.get(STEP, [0, 0, 0])[0])
    lines = [
        (
            f"{tokens} tokens in {steps} steps, {wall_s:.2f} s: {1e6 * wall_s / steps:.0f} µs a step, "
            f"{tokens / wall_s:.1f} tok/s"
        ),
        "engine thread, per step:",
        *_lines(STEP_POINTS, totals, steps, "step"),
    ]
    lines += ["event loop, per token:", *_lines(TOKEN_POINTS, totals, max(1, tokens), "token")]
    lines.append("CPU time by process and thread, µs per token:")
    lines += [f"  {name:26} {1e6 * value / max(1, tokens):>14.1f}" for name, value in cpu_s.items()]
    return "\n".join(lines)
