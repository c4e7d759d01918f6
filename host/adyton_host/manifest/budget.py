# SPDX-License-Identifier: Apache-2.0
"""How large an enclave has to be, and how many threads it needs, from its models and its configuration.

Both are measured. Too small, and the enclave ends when it runs out; too large costs nothing with EDMM, and without it
memory at the start, so sizes are on the safe side and rounded up to what SGX allows, a power of two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from adyton_host.catalog import CatalogModel
from adyton_host.model_memory import read_shape
from adyton_protocol.errors import ConfigError

STACK_BYTES: Final = 8 << 20
"""Of every thread. Linux's own default, with which all limits on nested input were tested."""
MIN_FDS: Final = 900
"""Gramine's own default."""

_BASE_BYTES: Final = 1 << 30
"""Gramine, Python with its packages, buffers of requests, and what allocators lose."""
_SERVER_THREADS: Final = 32
"""asyncio's pool for blocking calls: as many as there are processors and four more, at most this many."""
_OWN_THREADS: Final = 3
"""The event loop, the engine, and what prepares memory for weights."""
_WEIGHT_THREADS: Final = 8
"""Most threads that read and hash weights."""
_GRAMINE_THREADS: Final = 3
"""Of Gramine itself: inter-process communication, asynchronous events, and a TLS handshake for each new pipe."""
_SPARE_THREADS: Final = 4

DEFAULT_N_CTX_TOTAL: Final = 16_384
DEFAULT_N_BATCH: Final = 512
DEFAULT_KV_TYPES: Final = ("f16", "q8_0")
DEFAULT_CONNECTIONS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What an enclave gets.

    Attributes:
        parts: Bytes by what they are for, before rounding.
        enclave_bytes: A power of two.
        threads: Thread slots.
        fds: Open file descriptors.
    """

    parts: Mapping[str, int]
    enclave_bytes: int
    threads: int
    fds: int


def max_threads(compute_threads: int, generators: int) -> int:
    """Thread slots for so many compute threads and models that answer, each of which compiles grammars in a thread."""
    pools = _SERVER_THREADS + _OWN_THREADS + _WEIGHT_THREADS
    return compute_threads + generators + pools + _GRAMINE_THREADS + _SPARE_THREADS


def make_budget(
    models: tuple[CatalogModel, ...], overrides: Mapping[str, object], *, enclave_bytes: int | None = None
) -> Budget:
    """Size an enclave.

    Args:
        models: To be loaded.
        overrides: The operator's part of the configuration; ``[engine] threads`` must be a number above zero.
        enclave_bytes: Take this size instead of an estimate; a power of two.

    Raises:
        ConfigError: A model cannot be read and no size was given, or the size is not a power of two.
    """
    engine, limits = _table(overrides, "engine"), _table(overrides, "limits")
    generators = sum(model.role == "generator" for model in models)
    threads = max_threads(_whole(engine, "threads", 0), generators)
    parts = {"Gramine, Python, libraries and requests": _BASE_BYTES, "stacks": threads * STACK_BYTES}
    if enclave_bytes is None:
        for model in models:
            parts |= _model(model, engine)
        enclave_bytes = 1 << (sum(parts.values()) - 1).bit_length()
    if enclave_bytes <= 0 or enclave_bytes & (enclave_bytes - 1):
        raise ConfigError("the size of an enclave is a power of two, such as 4G")
    fds = max(MIN_FDS, 2 * _whole(limits, "max_connections", DEFAULT_CONNECTIONS) + 128)
    return Budget(parts=parts, enclave_bytes=enclave_bytes, threads=threads, fds=fds)


def _model(model: CatalogModel, engine: Mapping[str, object]) -> dict[str, int]:
    if model.key_id is not None:
        raise ConfigError(
            f"model {model.name!r} is sealed, so its memory cannot be read from its file; say how large the enclave "
            "shall be with --enclave-size, for example 16G (the file, its KV cache and 1.5 GB, rounded up)"
        )
    shape = read_shape(*model.files)
    n_batch = _whole(engine, "n_batch", DEFAULT_N_BATCH)
    parts = {f"weights of {model.name}": shape.file_bytes}
    if model.role != "embedding":
        cells = _whole(engine, "n_ctx_total", DEFAULT_N_CTX_TOTAL)
        kinds = (engine.get("kv_type_k", DEFAULT_KV_TYPES[0]), engine.get("kv_type_v", DEFAULT_KV_TYPES[1]))
        parts[f"KV cache of {model.name}, {cells} cells"] = shape.kv_bytes(
            cells, kv_type_k=str(kinds[0]), kv_type_v=str(kinds[1])
        )
    parts[f"computing with {model.name}"] = shape.compute_bytes(
        n_batch=n_batch, n_ubatch=_whole(engine, "n_ubatch", DEFAULT_N_BATCH)
    )
    return parts


def _table(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = document.get(key, {})
    if not isinstance(value, Mapping):
        raise ConfigError(f"[{key}] of the enclave's configuration is not a table")
    return value


def _whole(table: Mapping[str, object], key: str, default: int) -> int:
    value = table.get(key, default)
    if type(value) is not int or value < 0:
        raise ConfigError(f"{key} of the enclave's configuration is not a whole number")
    return value


def parse_size(text: str) -> int:
    """Bytes of a size as Gramine writes it: digits, and K, M or G.

    Raises:
        ConfigError: It is none.
    """
    digits, unit = (text[:-1], text[-1]) if text[-1:] in {"K", "M", "G"} else (text, "")
    if not digits.isascii() or not digits.isdecimal():
        raise ConfigError(f"{text!r} is not a size such as 4G")
    return int(digits) << {"": 0, "K": 10, "M": 20, "G": 30}[unit]


def format_size(size_bytes: int) -> str:
    """The same the other way round, in the largest unit that divides it."""
    for shift, unit in ((30, "G"), (20, "M"), (10, "K")):
        if size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift}{unit}"
    return str(size_bytes)
