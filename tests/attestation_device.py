# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Gramine's ``/dev/attestation``: a real directory with pipes in it, and a platform behind them.

A write to ``user_report_data`` sets what ``report`` and ``quote`` then speak about, as in an enclave. The quotes are of
Intel's format (Quote Library API, appendix A.4) and signed by nobody.
"""

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

REPORT_DATA_BYTES = 64
_BODY = struct.Struct("<16sI28s16s32s32s32s96sHHH42x16s64s")
_SIGNATURE_DATA = bytes(range(256)) * 2


def report_body(report_data: bytes, *, mr_enclave: bytes = b"\x11" * 32) -> bytes:
    """The 384 bytes of an SGX report body."""
    return _BODY.pack(
        b"\x0c" * 16, 0, bytes(28), struct.pack("<QQ", 5, 0xE7), mr_enclave, bytes(32), b"\x22" * 32, bytes(96),
        1, 1, 0, bytes(16), report_data,
    )  # fmt: skip


def local_report(body: bytes) -> bytes:
    """The 432 bytes that EREPORT gives: the body, a key id and a MAC."""
    return body + bytes(48)


def quote_of(body: bytes, *, version: int = 3, signature_data: bytes = _SIGNATURE_DATA) -> bytes:
    """A quote about ``body``."""
    header = struct.pack("<HHIHH16s20s", version, 2, 0, 8, 13, b"\x93" * 16, bytes(20))
    return header + body + struct.pack("<I", len(signature_data)) + signature_data


@dataclass(slots=True)
class Device:
    """The directory, and what its platform answers.

    Attributes:
        path: The directory.
        written: What was written to ``user_report_data``, in order.
        make_report: From 64 bytes of report data to what ``report`` holds.
        make_quote: From 64 bytes of report data to what ``quote`` holds.
    """

    path: Path
    written: list[bytes] = field(default_factory=list)
    make_report: Callable[[bytes], bytes] = lambda data: local_report(report_body(data))
    make_quote: Callable[[bytes], bytes] = lambda data: quote_of(report_body(data))


@contextmanager
def attestation_device(directory: Path, *, kind: bytes = b"dcap") -> Iterator[Device]:
    """A device in ``directory`` that answers until the block ends."""
    (directory / "attestation_type").write_bytes(kind)
    (directory / "keys").mkdir()
    for name in ("user_report_data", "report", "quote"):
        os.mkfifo(directory / name)
    device, ended = Device(directory), threading.Event()

    def serve() -> None:
        while True:
            report_data = (directory / "user_report_data").read_bytes()
            if ended.is_set():
                return
            device.written.append(report_data)
            # Looked at before the reader can go on, and with it the test, which takes files away and puts them back.
            has_quote = (directory / "quote").is_fifo()
            if (directory / "report").is_fifo():
                _hand_over(directory / "report", device.make_report(report_data))
            if has_quote:
                _hand_over(directory / "quote", device.make_quote(report_data))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield device
    finally:
        ended.set()
        (directory / "user_report_data").write_bytes(b"")
        thread.join()


def _hand_over(path: Path, data: bytes) -> None:
    """Write what a reader asks for; a reader that goes away early has seen enough."""
    try:
        path.write_bytes(data)
    except BrokenPipeError:
        return
