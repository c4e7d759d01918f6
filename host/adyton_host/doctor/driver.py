# SPDX-License-Identifier: Apache-2.0
"""The kernel's SGX driver, and who may use its two devices.

``/dev/sgx_enclave`` makes enclaves; whoever starts Gramine has to open it. ``/dev/sgx_provision`` lets an enclave use
the provisioning key, which the quoting enclaves need; those run in the AESM service, so its user has to open that one.
"""

import re
from typing import Final

from adyton_host.doctor.finding import Finding, failed, passed, skipped, warned
from adyton_host.doctor.machine import GROUP_RW, Machine

ENCLAVE_DEVICE: Final = "/dev/sgx_enclave"
PROVISION_DEVICE: Final = "/dev/sgx_provision"
_OLD_DRIVERS: Final = ("/dev/isgx", "/dev/sgx/enclave")
_CONTAINER_MARKS: Final = ("/.dockerenv", "/run/.containerenv")
_RELEASE: Final = re.compile(r"(\d+)\.(\d+)")
_FIRST_WITH_SGX: Final = (5, 11)
_FIRST_WITH_EDMM: Final = (6, 0)
_AESM_USER: Final = "aesmd"
_NEWER_KERNEL: Final = (
    "Ubuntu: sudo apt install linux-generic-hwe-$(lsb_release -rs); Debian: sudo apt install linux-image-amd64; "
    "then reboot"
)


def examine_driver(machine: Machine) -> tuple[Finding, ...]:
    """Look at kernel, driver and devices."""
    return (_kernel(machine), _enclave_device(machine), _provision_device(machine))


def kernel_release(machine: Machine) -> str:
    """As ``uname -r`` says."""
    return (machine.read("/proc/sys/kernel/osrelease") or "").strip()


def _kernel(machine: Machine) -> Finding:
    name, release = "kernel", kernel_release(machine)
    found = _RELEASE.match(release)
    if found is None:
        return skipped(name, "its version cannot be read")
    version = (int(found[1]), int(found[2]))
    if version < _FIRST_WITH_SGX:
        return failed(name, f"{release}; the SGX driver came with 5.11", _NEWER_KERNEL)
    if _built_without_sgx(machine, release):
        return failed(name, f"{release} was built without CONFIG_X86_SGX", _NEWER_KERNEL)
    if version < _FIRST_WITH_EDMM:
        return warned(name, f"{release}; enclaves can grow (EDMM) from 6.0 on", _NEWER_KERNEL)
    return passed(name, release)


def _built_without_sgx(machine: Machine, release: str) -> bool:
    config = machine.read(f"/boot/config-{release}")
    return config is not None and "CONFIG_X86_SGX=y" not in config.splitlines()


def _enclave_device(machine: Machine) -> Finding:
    name, access = "sgx_enclave", machine.access(ENCLAVE_DEVICE)
    if access is None:
        return _no_device(machine, name)
    if access.allows(machine.user_id, machine.group_ids):
        return passed(name, f"{ENCLAVE_DEVICE}, and this user may open it")
    group = machine.group_name(access.group_id)
    if group == "root" or access.mode & GROUP_RW != GROUP_RW:
        fix = (
            'sudo groupadd --system --force sgx && echo \'KERNEL=="sgx_enclave", GROUP="sgx", MODE="0660"\' | '
            "sudo tee /etc/udev/rules.d/90-sgx.rules && sudo udevadm control --reload && sudo udevadm trigger && "
            "sudo usermod -aG sgx $USER, then log in again"
        )
    else:
        fix = f"sudo usermod -aG {group} $USER, then log in again"
    return failed(name, f"{ENCLAVE_DEVICE} is there, and this user may not open it (group {group})", fix)


def _no_device(machine: Machine, name: str) -> Finding:
    if old := next((path for path in _OLD_DRIVERS if machine.exists(path)), None):
        return failed(
            name,
            f"{old} belongs to a driver from outside the kernel, which Gramine 1.9 does not use",
            "remove that driver (sudo /opt/intel/sgxdriver/uninstall.sh, or dkms remove) and boot the kernel's own",
        )
    if any(machine.exists(mark) for mark in _CONTAINER_MARKS):
        return failed(
            name,
            f"no {ENCLAVE_DEVICE} in this container",
            f"start it with --device {ENCLAVE_DEVICE} --device {PROVISION_DEVICE} -v /var/run/aesmd:/var/run/aesmd",
        )
    return failed(
        name,
        f"no {ENCLAVE_DEVICE}: the kernel's driver found no SGX that it can use",
        "sudo dmesg | grep -i sgx says why; as a rule SGX is off in the firmware, or has no memory there",
    )


def _provision_device(machine: Machine) -> Finding:
    name, access = "sgx_provision", machine.access(PROVISION_DEVICE)
    if access is None:
        if not machine.exists(ENCLAVE_DEVICE):
            return skipped(name, "no driver")
        return failed(
            name,
            f"no {PROVISION_DEVICE}: no quotes",
            "sudo dmesg | grep -i sgx; a kernel from 5.11 on has it",
        )
    user_id = machine.user_id_of(_AESM_USER)
    if user_id is None:
        return skipped(name, f"{PROVISION_DEVICE} is there; the user {_AESM_USER}, who needs it, is not")
    if access.allows(user_id, machine.groups_of(_AESM_USER)):
        return passed(name, f"{PROVISION_DEVICE}, and {_AESM_USER} may open it")
    return failed(
        name,
        f"{PROVISION_DEVICE} is there, and {_AESM_USER} may not open it, so there are no quotes",
        'sudo groupadd --system --force sgx_prv && echo \'KERNEL=="sgx_provision", GROUP="sgx_prv", MODE="0660"\' | '
        "sudo tee /etc/udev/rules.d/91-sgx-provision.rules && sudo udevadm control --reload && sudo udevadm trigger && "
        f"sudo usermod -aG sgx_prv {_AESM_USER} && sudo systemctl restart aesmd",
    )
