# SPDX-License-Identifier: Apache-2.0
"""Does the enclave fit into the memory that the processor protects, or would it page itself to death?

The enclave page cache (EPC) is set aside by the firmware. An enclave may be larger, and then the kernel encrypts pages
out and in: each costs tens of microseconds, and decoding touches every weight for every token, so a model that does not
fit is slower by orders of magnitude. What it needs is known beforehand: weights, KV cache, and about 1.5 GB for Python,
the libraries and compute buffers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from adyton_host.doctor.finding import Finding, failed, passed, skipped, warned
from adyton_host.doctor.machine import Machine

RUNTIME_BYTES: Final = 1_500_000_000
_NODES: Final = "/sys/devices/system/node/node*/x86/sgx_total_bytes"
_MEMINFO_LINE: Final = re.compile(r"^(\w+):\s+(\d+)", re.MULTILINE)
_LEAF_SGX: Final = 0x12
_FIRST_SECTION: Final = 2
_MAX_SECTIONS: Final = 64
_SECTION_VALID: Final = 1
_COMFORT: Final = 0.9
_RESERVED_SHARE: Final = 0.1
_SHOWN_PARTS: Final = 3
_GIB: Final = 1 << 30
_HASH_BYTES_S: Final = 110e6
"""What Gramine's own SHA-256 did per second, measured; it hashes a trusted file three times before it is read."""
_HASHES: Final = 3
_HUGE_FILE_BYTES: Final = 256 << 20
_BIGGER_EPC: Final = (
    "give SGX more memory in the firmware setup (PRMRR size, up to 512 GB for each Xeon socket), or serve a smaller "
    "model or one with fewer bits (`adyton-models quantise`), or fewer cells ([engine] n_ctx_total)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """What an enclave occupies once it serves.

    Attributes:
        parts: Bytes by what they are for, as ``adyton-host manifest render`` reckons.
        committed_bytes: What is taken at start whether it is used or not: the enclave's size without EDMM, else 0.
    """

    parts: Mapping[str, int]
    committed_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return max(self.committed_bytes, sum(self.parts.values()))

    def __str__(self) -> str:
        """The sum, and what it consists of, the largest part first."""
        largest = sorted(self.parts.items(), key=lambda part: -part[1])
        shown, rest = largest[:_SHOWN_PARTS], sum(size for _, size in largest[_SHOWN_PARTS:])
        listed = ", ".join(
            f"{_gib(size)} {what}" for what, size in [*shown, *([("the rest", rest)] if rest else [])]
        )
        committed = f", {_gib(self.committed_bytes)} committed at start" if self.committed_bytes else ""
        return f"{_gib(self.total_bytes)} ({listed}{committed})"


def examine_memory(machine: Machine, need: MemoryNeed | None, *, sgx: bool) -> tuple[Finding, ...]:
    """Look at the EPC, at what is to go into it, and at huge pages.

    Args:
        machine: Which.
        need: What is to run there; None if that is not known.
        sgx: Whether the processor has SGX at all.
    """
    sections = epc_bytes(machine)
    epc = _epc(sections) if sgx else skipped("epc", "no SGX")
    return (epc, _fits(sections, need), examine_hugepages(machine))


def epc_bytes(machine: Machine) -> tuple[int, ...]:
    """Sizes of the EPC, one for each NUMA node, or for each section where only the processor says; empty if unknown."""
    nodes = tuple(
        int(text)
        for path in machine.matching(_NODES)
        if (text := path.read_text(encoding="ascii").strip()).isdecimal()
    )
    return nodes or _sections(machine)


def _sections(machine: Machine) -> tuple[int, ...]:
    """Intel SDM volume 3D, section 37.7.2: sub-leaves from 2 on, until one is not valid."""
    found = []
    for subleaf in range(_FIRST_SECTION, _FIRST_SECTION + _MAX_SECTIONS):
        registers = machine.cpuid(_LEAF_SGX, subleaf)
        if registers is None or registers.eax & 0xF != _SECTION_VALID:
            break
        found.append((registers.ecx & 0xFFFFF000) | (registers.edx & 0xFFFFF) << 32)
    return tuple(found)


def _epc(sections: tuple[int, ...]) -> Finding:
    if not sum(sections):
        return failed(
            "epc", "no protected memory is set aside", "set the PRMRR size in the firmware setup, then reboot"
        )
    shown = " + ".join(_gib(size) for size in sections)
    return passed("epc", shown if len(sections) == 1 else f"{shown} = {_gib(sum(sections))}")


def _fits(sections: tuple[int, ...], need: MemoryNeed | None) -> Finding:
    name, total = "enclave memory", sum(sections)
    if need is None or not total:
        return skipped(name, "no EPC" if not total else "no image and no model to reckon with")
    if need.total_bytes > total:
        return failed(
            name, f"needs {need}, and the EPC has {_gib(total)}: it would page for every token", _BIGGER_EPC
        )
    if need.total_bytes > _COMFORT * total:
        return warned(
            name, f"needs {need} of {_gib(total)}; with any other enclave beside it, it pages", _BIGGER_EPC
        )
    if len(sections) > 1 and need.total_bytes > max(sections):
        return warned(
            name,
            f"needs {need}, more than one node has ({_gib(max(sections))}): no paging, but reads cross sockets",
            "a model that fits into one node is faster; so are two enclaves, one for each",
        )
    return passed(name, f"needs {need} of {_gib(total)}: no paging")


def examine_hugepages(machine: Machine) -> Finding:
    """Pages that are set aside are missing elsewhere; transparent ones help an enclave that is simulated."""
    name, info = "hugepages", meminfo(machine)
    reserved = info.get("HugePages_Total", 0) * info.get("Hugepagesize", 0) * 1024
    if reserved > _RESERVED_SHARE * info.get("MemTotal", 0) * 1024:
        return warned(
            name,
            f"{_gib(reserved)} are set aside as huge pages, which neither SGX nor llama.cpp uses",
            "sudo sysctl vm.nr_hugepages=0",
        )
    setting = machine.read("/sys/kernel/mm/transparent_hugepage/enabled") or ""
    chosen = re.search(r"\[(\w+)\]", setting)
    if chosen and chosen[1] == "never":
        return warned(
            name,
            "transparent huge pages are off; it does not matter to SGX, and slows a simulated enclave",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )
    return passed(name, f"none set aside; transparent ones: {chosen[1] if chosen else 'unknown'}")


def examine_huge_files(sizes: Mapping[str, int]) -> Finding:
    """Files that Gramine hashes as a whole, although they are large.

    Args:
        sizes: Bytes of each trusted file, by name.
    """
    name = "huge files"
    huge = {file: size for file, size in sizes.items() if size > _HUGE_FILE_BYTES}
    if not huge:
        return passed(name, f"{len(sizes)} trusted files, {_gib(sum(sizes.values()))} in all")
    seconds = sum(huge.values()) * _HASHES / _HASH_BYTES_S
    return warned(
        name,
        f"{', '.join(sorted(huge))}: trusted files over {_gib(_HUGE_FILE_BYTES)}; hashing takes {seconds:.0f} s",
        "weights are allowed files, whose digest the configuration pins; render the image again",
    )


def meminfo(machine: Machine) -> dict[str, int]:
    """The numbers of ``/proc/meminfo``, most of them in KiB."""
    return {key: int(value) for key, value in _MEMINFO_LINE.findall(machine.read("/proc/meminfo") or "")}


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB // 10 else f"{size / (1 << 20):.0f} MiB"
