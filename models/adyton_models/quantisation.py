# SPDX-License-Identifier: Apache-2.0
"""Writes a model with smaller numbers, through llama.cpp's own quantiser, and says what that did to which tensor.

K-quants pack 256 numbers of a row into a block. Where the rows of a matrix are no multiple of that, llama.cpp stores
the matrix in another type, larger and sometimes better than what was asked for: such tensors are named, and where all
of them would be, the file would be another type under a false name and is refused.
"""

import ctypes
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from llama_cpp import llama_cpp as _bindings

import adyton_enclave.engine.llama  # noqa: F401 - turns llama.cpp's log off
from adyton_models.gguf_facts import ModelFacts, elements, read_facts
from adyton_protocol.errors import ConfigError

_lib: Any = _bindings
Report = Callable[[float, str], None]

_POLL_S: Final = 0.2
_UNQUANTISED: Final = frozenset({"f32", "f16", "bf16"})
_SPARE: Final = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A way to store a model.

    Attributes:
        ftype: llama.cpp's number of it.
        block: Numbers in a block of its main type; rows have to be multiples.
        bits: About so many bits a number, to estimate the file's size.
    """

    ftype: int
    block: int
    bits: float


TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        "F16": Target(ftype=_lib.LLAMA_FTYPE_MOSTLY_F16, block=1, bits=16.0),
        "Q8_0": Target(ftype=_lib.LLAMA_FTYPE_MOSTLY_Q8_0, block=32, bits=8.5),
        "Q6_K": Target(ftype=_lib.LLAMA_FTYPE_MOSTLY_Q6_K, block=256, bits=6.6),
        "Q4_K_M": Target(ftype=_lib.LLAMA_FTYPE_MOSTLY_Q4_K_M, block=256, bits=4.9),
        "Q4_0": Target(ftype=_lib.LLAMA_FTYPE_MOSTLY_Q4_0, block=32, bits=4.6),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """A file that was written.

    Attributes:
        target: Name of what was asked for.
        path: The file.
        facts: Its header.
        fallbacks: Matrices that could not be stored as asked, and how they are stored instead.
    """

    target: str
    path: Path
    facts: ModelFacts = field(repr=False)
    fallbacks: Mapping[str, str]


def stored_as(facts: ModelFacts) -> str:
    """The name of how a model's matrices are stored, by the type that holds most numbers."""
    return next(iter(facts.types), "nothing").upper()


def out_path(source: Path, target: str, directory: Path) -> Path:
    """Where a quantised file goes: the source's name with its type exchanged."""
    stem = source.name.removesuffix(".gguf").partition("-00001-of-")[0]
    for kind in ("F16", "BF16", "F32", "f16", "bf16", "f32"):
        stem = stem.removesuffix(f"-{kind}").removesuffix(f".{kind}")
    return directory / f"{stem}-{target}.gguf"


def check_source(facts: ModelFacts, *, requantise: bool) -> None:
    """Refuse what was quantised before: errors would add up, and the report would compare with the wrong thing.

    Raises:
        ConfigError: It was, and `requantise` is false.
    """
    coarse = [kind for kind in facts.types if kind.lower() not in _UNQUANTISED]
    if not facts.matrices:
        raise ConfigError("the file holds no matrices: there is nothing to quantise")
    if coarse and not requantise:
        raise ConfigError(
            f"the file is stored as {', '.join(coarse)} already: start from F16, BF16 or F32, or accept that errors "
            "add up with --requantise"
        )


def misfits(facts: ModelFacts, target: str) -> tuple[str, ...]:
    """Matrices whose rows are no multiple of the target's block."""
    block = TARGETS[target].block
    return tuple(tensor.name for tensor in facts.matrices if tensor.shape[0] % block)


def check_target(facts: ModelFacts, target: str, *, allow_fallback: bool) -> None:
    """Refuse a target that no matrix, or none that matters, could be stored as.

    Raises:
        ConfigError: All matrices would fall back.
    """
    names = misfits(facts, target)
    if len(names) < len(facts.matrices) or allow_fallback:
        return
    widths = sorted({tensor.shape[0] for tensor in facts.matrices})
    raise ConfigError(
        f"no matrix of this model can be stored as {target}: rows of {', '.join(map(str, widths))} numbers are no "
        f"multiples of {TARGETS[target].block}, so every one would silently get another type. Use Q8_0 or Q4_0, or "
        "say --allow-fallback"
    )


def quantise(
    facts: ModelFacts,
    target: str,
    out: Path,
    *,
    threads: int,
    requantise: bool = False,
    report: Report = lambda _share, _note: None,
) -> Quantised:
    """Write one file.

    Args:
        facts: The source; of several files, all are read and one is written.
        target: A key of `TARGETS`.
        out: Written in one piece: it is there whole or not at all.
        threads: Of llama.cpp's quantiser.
        requantise: Allow a source that is quantised already.
        report: Called every so often with the share that is written, about, and a note.

    Raises:
        ConfigError: There is no room for it, or llama.cpp refuses.
    """
    expected = int(facts.parameters * TARGETS[target].bits / 8) + len(facts.model.header)
    free = shutil.disk_usage(out.parent).free
    if free < expected * _SPARE:
        raise ConfigError(
            f"{out.name} takes about {expected / 1e6:.0f} MB, and {out.parent} has {free / 1e6:.0f} MB left"
        )
    params = _lib.llama_model_quantize_default_params()
    params.ftype = TARGETS[target].ftype
    params.nthread = threads
    params.allow_requantize = requantise
    draft = out.with_name(f".{out.name}.part")
    try:
        status = _watched(facts.paths[0], draft, params, expected, report)
        if status != 0:
            raise ConfigError(f"llama.cpp could not write {facts.paths[0].name} as {target}")
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    written = read_facts(out)
    fallbacks = {
        name: written.tensors[name].type.name.upper()
        for name in misfits(facts, target)
        if name in written.tensors
    }
    return Quantised(target=target, path=out, facts=written, fallbacks=fallbacks)


def _watched(source: Path, draft: Path, params: Any, expected: int, report: Report) -> int:
    """Let llama.cpp write in a thread and watch the file grow; there is no other sign of progress."""
    result: list[int] = []
    done = threading.Event()

    def work() -> None:
        try:
            result.append(
                int(
                    _lib.llama_model_quantize(str(source).encode(), str(draft).encode(), ctypes.byref(params))
                )
            )
        finally:
            done.set()

    thread = threading.Thread(target=work, name="quantise", daemon=True)
    thread.start()
    while not done.wait(_POLL_S):
        size = draft.stat().st_size if draft.exists() else 0
        report(min(size / expected, 0.99), f"{size / 1e6:.0f} MB")
    thread.join()
    report(1.0, "")
    return result[0] if result else -1


def bits_per_number(facts: ModelFacts) -> float:
    """Bits that a number takes on average, headers left out."""
    numbers = sum(elements(tensor) for tensor in facts.tensors.values())
    return 8 * facts.weights_bytes / numbers
