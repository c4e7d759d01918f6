# SPDX-License-Identifier: Apache-2.0
"""Does the processor have SGX, has the firmware switched it on, and can enclaves grow?

Sources: Intel SDM volume 3D, section 37.7 (CPUID leaf 7 and leaf 0x12); Linux ``Documentation/arch/x86/sgx.rst``. Linux
takes ``sgx`` out of the flags of ``/proc/cpuinfo`` where the firmware left it off.
"""

from typing import Final

from adyton_host.doctor.finding import Finding, failed, passed, skipped, warned
from adyton_host.doctor.machine import Machine

_LEAF_FEATURES: Final = 7
_SGX_BIT: Final = 1 << 2  # EBX
_LAUNCH_CONTROL_BIT: Final = 1 << 30  # ECX
_LEAF_SGX: Final = 0x12
_SGX1_BIT: Final = 1 << 0  # EAX
_SGX2_BIT: Final = 1 << 1  # EAX
_SIMULATE: Final = "without SGX this machine can run `adyton-host up --simulate`, which protects nothing"
_FIRMWARE: Final = (
    "in the firmware setup: enable Total Memory Encryption (TME) first where there is one, set SGX (Software Guard "
    'Extensions) to "Enabled", and give it memory (PRMRR size); on two or more sockets, UMA-based clustering off. Then '
    "look at: sudo dmesg | grep -i sgx"
)
# What Gramine calls them in sgx.cpu_features, and the flag of /proc/cpuinfo that stands for each.
_FLAG_OF: Final = {"avx": "avx", "avx512": "avx512f", "amx": "amx_tile", "mpx": "mpx", "pkru": "pku"}


def examine_processor(machine: Machine, cpu_features: dict[str, str] | None = None) -> tuple[Finding, ...]:
    """Look at it.

    Args:
        machine: Which.
        cpu_features: ``sgx.cpu_features`` of the manifest that is to be started, if there is one.
    """
    sgx = _sgx(machine)
    if sgx.verdict != "pass":
        rest = (skipped(name, "no SGX") for name in ("sgx firmware", "launch control", "sgx2"))
        return (sgx, *rest)
    return (
        sgx,
        _firmware(machine),
        _launch_control(machine),
        _sgx2(machine),
        *_features(machine, cpu_features or {}),
    )


def cpuinfo(machine: Machine) -> dict[str, str]:
    """The members of the first processor of ``/proc/cpuinfo``."""
    first, _, _ = (machine.read("/proc/cpuinfo") or "").partition("\n\n")
    return {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }


def flags_of(machine: Machine) -> frozenset[str]:
    """What the processor can do, in Linux's words."""
    return frozenset(cpuinfo(machine).get("flags", "").split())


def _sgx(machine: Machine) -> Finding:
    name, known = "sgx", cpuinfo(machine)
    model = known.get("model name", "an unknown processor")
    if machine.architecture != "x86_64":
        return failed(
            name, f"SGX exists on Intel's x86-64 only, and this is {machine.architecture}", _SIMULATE
        )
    if known.get("vendor_id", "GenuineIntel") != "GenuineIntel":
        return failed(name, f"{model} is no Intel processor", _SIMULATE)
    if "sgx" in flags_of(machine) or _bit(machine, _LEAF_FEATURES, "ebx", _SGX_BIT):
        microcode = known.get("microcode")
        return passed(name, model + (f", microcode {microcode}" if microcode else ""))
    if "hypervisor" in flags_of(machine):
        return failed(
            name,
            f"{model}, in a virtual machine that is given no SGX",
            "give it some: in QEMU -cpu host,+sgx-provisionkey -object memory-backend-epc,id=m,size=64G,prealloc=on "
            "-M sgx-epc.0.memdev=m,sgx-epc.0.node=0; at a cloud, an instance type with SGX; or use the machine itself",
        )
    return failed(
        name,
        f"{model} has no SGX",
        "a Xeon Scalable of the third generation or later has it (Core processors since the 11th do not); "
        + _SIMULATE,
    )


def _firmware(machine: Machine) -> Finding:
    name = "sgx firmware"
    sgx1 = _bit(machine, _LEAF_SGX, "eax", _SGX1_BIT)
    if sgx1 is False:
        return failed(name, "the processor has SGX and the firmware keeps it off", _FIRMWARE)
    if "sgx" not in flags_of(machine):
        return failed(
            name,
            "the processor has SGX and Linux does not use it: off in the firmware, or an old kernel",
            _FIRMWARE,
        )
    return passed(name, "SGX is on")


def _launch_control(machine: Machine) -> Finding:
    name = "launch control"
    if "sgx_lc" in flags_of(machine):
        return passed(name, "flexible: enclaves of any signer start")
    return failed(
        name,
        "not flexible (no sgx_lc): the kernel's driver cannot start enclaves of our own signer",
        'in the firmware setup, set "SGX Launch Control" to "Unlocked"; processors without it cannot be used',
    )


def _sgx2(machine: Machine) -> Finding:
    name = "sgx2"
    sgx2 = _bit(machine, _LEAF_SGX, "eax", _SGX2_BIT)
    if sgx2 is None:
        return skipped(name, "CPUID cannot be read here; as root: modprobe cpuid, then look again")
    if sgx2:
        return passed(name, "enclaves can grow while they run (EDMM)")
    return warned(
        name,
        "no SGX2: the whole enclave is committed at start, and its memory stays writable and executable",
        "render the image without EDMM (`adyton-host manifest render` does unless told otherwise)",
    )


def _features(machine: Machine, wanted: dict[str, str]) -> tuple[Finding, ...]:
    required = [feature for feature, mode in wanted.items() if mode == "required"]
    if not required:
        return ()
    missing = [feature for feature in required if _FLAG_OF.get(feature, feature) not in flags_of(machine)]
    if missing:
        return (
            failed(
                "cpu features",
                f"the image was built for {', '.join(missing)}, which this processor lacks",
                "render an image for this kind of processor: build llama.cpp without them (manifests/build_llama.py), "
                "then `adyton-host manifest render` and `sign`",
            ),
        )
    return (passed("cpu features", f"{', '.join(required)}, as the image requires"),)


def _bit(machine: Machine, leaf: int, register: str, bit: int) -> bool | None:
    registers = machine.cpuid(leaf, 0)
    return None if registers is None else bool(getattr(registers, register) & bit)
