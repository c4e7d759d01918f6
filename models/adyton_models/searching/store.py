# SPDX-License-Identifier: Apache-2.0
"""Records that were measured, one JSON object a line, only ever appended to: an interruption loses none.

Every process writes a file of its own and reads all. A last line that was cut off is left out, and so measured again.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO


class Store:
    """One kind of record. Use it as a context manager to add some."""

    def __init__(self, directory: Path, kind: str, *, writer: str = "0") -> None:
        """Records of `kind` in `directory`; added ones go to a file of this writer."""
        self._pattern = f"{kind}.*.jsonl"
        self._directory = directory
        self._own = directory / f"{kind}.{writer}.jsonl"
        self._stream: TextIO | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All records of all writers, as of now."""
        for path in sorted(self._directory.glob(self._pattern)):
            with path.open(encoding="utf-8") as stream:
                for line in stream:
                    if line.endswith("\n"):
                        try:
                            yield json.loads(line)
                        except ValueError:
                            # Cut off by an interruption, and another process went on behind it.
                            continue

    def add(self, record: dict[str, Any]) -> None:
        """Append a record; it is on its way to the disk when this returns."""
        if self._stream is None:
            raise ValueError("the store is not open")
        self._stream.write(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        whole = not self._own.exists() or self._own.read_bytes()[-1:] in {b"", b"\n"}
        self._stream = self._own.open("a", encoding="utf-8")
        if not whole:
            self._stream.write("\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
