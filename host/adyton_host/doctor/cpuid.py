# SPDX-License-Identifier: Apache-2.0
"""The CPUID instruction.

Linux leaves SGX1, SGX2 and the sizes of the enclave page cache out of ``/proc/cpuinfo``, so the processor is asked
itself: by ``/dev/cpu/0/cpuid`` where that can be opened (root, and the module ``cpuid``), else by the instruction, in a
page of memory that is executable for as long as the call takes. A kernel that forbids such pages gives no answer, and
the findings say so.
"""

import ctypes
import mmap
import os
import platform
import struct
from typing import Final, NamedTuple

_DEVICE: Final = "/dev/cpu/0/cpuid"
_REGISTERS: Final = struct.Struct("<4I")
# push rbx; mov eax, esi; mov ecx, edx; cpuid; mov [rdi], eax; mov [rdi+4], ebx; mov [rdi+8], ecx;
# mov [rdi+12], edx; pop rbx; ret  (System V AMD64 ABI: out, leaf, subleaf; rbx is the callee's to keep)
_CODE: Final = bytes.fromhex("53 89f0 89d1 0fa2 8907 895f04 894f08 89570c 5b c3")


class Registers(NamedTuple):
    """What one CPUID call returned: four 32-bit registers."""

    eax: int
    ebx: int
    ecx: int
    edx: int


def read_cpuid(leaf: int, subleaf: int) -> Registers | None:
    """Ask the processor that this runs on; None where it is not x86-64, or not allowed."""
    if platform.machine() != "x86_64":
        return None
    return _from_device(leaf, subleaf) or _from_instruction(leaf, subleaf)


def _from_device(leaf: int, subleaf: int) -> Registers | None:
    try:
        device = os.open(_DEVICE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # The offset is the question: EAX in its low half, ECX in its high half (cpuid(4)).
        answer = os.pread(device, _REGISTERS.size, leaf | subleaf << 32)
    except OSError:
        return None
    finally:
        os.close(device)
    return Registers(*_REGISTERS.unpack(answer)) if len(answer) == _REGISTERS.size else None


def _from_instruction(leaf: int, subleaf: int) -> Registers | None:
    try:
        page = mmap.mmap(
            -1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        )
    except OSError:
        return None
    with page:
        page.write(_CODE)
        start = ctypes.c_char.from_buffer(page)
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)(
            ctypes.addressof(start)
        )
        answer = (ctypes.c_uint32 * 4)()
        function(ctypes.addressof(answer), leaf, subleaf)
        # The page cannot be unmapped while something points into it.
        del function, start
    return Registers(*answer)
