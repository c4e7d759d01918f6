# SPDX-License-Identifier: Apache-2.0
"""Timers around named functions of a running process: calls, wall time and CPU time of each, without its callees.

For profiling only. A function that has moved is reported as missing instead of being counted somewhere else.
Coroutines cannot be timed this way, so that what asyncio and uvicorn do shows as the rest of a thread's CPU time.
"""

import functools
import importlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Point:
    """A function to be timed: its label, and where it is defined."""

    label: str
    module: str
    name: str


class Timers:
    """Accumulates; any thread may run timed functions."""

    def __init__(self) -> None:
        self._totals: dict[str, list[int]] = {}
        self._stacks = threading.local()
        self.missing: list[str] = []

    def install(self, points: Sequence[Point]) -> None:
        """Put a timer around each function."""
        for point in points:
            try:
                owner: Any = importlib.import_module(point.module)
                *path, name = point.name.split(".")
                for step in path:
                    owner = getattr(owner, step)
                function = vars(owner)[name]
            except (ImportError, AttributeError, KeyError):
                self.missing.append(f"{point.module}.{point.name}")
                continue
            setattr(owner, name, self._timed(point.label, function))

    def _timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        total = self._totals.setdefault(label, [0, 0, 0])
        stacks = self._stacks
        wall, cpu = time.perf_counter_ns, time.thread_time_ns

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            stack: list[list[int]] = stacks.__dict__.setdefault("stack", [])
            stack.append([0, 0])
            cpu_ns, wall_ns = cpu(), wall()
            try:
                return function(*args, **kwargs)
            finally:
                wall_ns, cpu_ns = wall() - wall_ns, cpu() - cpu_ns
                inner = stack.pop()
                total[0] += 1
                total[1] += wall_ns - inner[0]
                total[2] += cpu_ns - inner[1]
                if stack:
                    stack[-1][0] += wall_ns
                    stack[-1][1] += cpu_ns

        return timed

    def snapshot(self) -> dict[str, Any]:
        """Calls, wall ns and CPU ns of each label so far, and what was not found."""
        return {"totals": self._totals, "missing": self.missing}
