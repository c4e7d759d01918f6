# SPDX-License-Identifier: Apache-2.0
"""A server with SGX that is not there: a directory that stands for ``/``, and functions for what is not a file.

:func:`sgx_server` builds one on which everything is in order; a test then breaks one thing.
"""

import hashlib
import json
import os
import shlex
import socket
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from adyton_host.doctor.clock_state import ClockState
from adyton_host.doctor.cpuid import Registers
from adyton_host.doctor.examination import Wishes
from adyton_host.doctor.machine import Machine
from adyton_host.enclave_config import render_toml
from adyton_host.manifest import template

GIB = 1 << 30
NOW_S = 1_795_000_000.0
RELEASE = "6.8.0-49-generic"
MRENCLAVE = bytes(range(32))
MANIFESTS = Path(__file__).parents[1] / "manifests"
FAKE_GRAMINE = Path(__file__).with_name("fake_gramine_sgx.py")
_USER_ID = os.getuid() + 4242
_FLAGS = "fpu avx avx2 avx512f avx512_vnni sgx sgx_lc"
_CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Gold 6354 CPU @ 3.00GHz
microcode\t: 0xd0003f5
flags\t\t: {flags}

processor\t: 1
vendor_id\t: GenuineIntel
"""
_CONFIG = """version = 1
listen_host = "127.0.0.1"
listen_port = {port}
attester = "{attester}"
[engine]
threads = 4
[[model]]
name = "m"
path = "/models/m.gguf"
content = "{digest}"
weights = "{digest}"
license = "CC0-1.0"
n_ctx = 512
"""
_CPUID = {
    (7, 0): Registers(0, 1 << 2, 1 << 30, 0),
    (0x12, 0): Registers(0b11, 0, 0, 0x381F),
    # One section of 8 GiB at 4 GiB, then the end.
    (0x12, 2): Registers(0x1, 0x1, 0x1, 0x2),
    (0x12, 3): Registers(0, 0, 0, 0),
}


@dataclass
class SgxServer:
    """The tree, the machine over it, and what is to run there."""

    root: Path
    machine: Machine
    wishes: Wishes
    aesm: socket.socket
    pccs: socket.socket

    @property
    def image(self) -> Path:
        return self.wishes.image

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Put a file there, or another in its place."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def remove(self, name: str) -> None:
        (self.root / name.lstrip("/")).unlink()

    def change(self, **members: object) -> None:
        """Another machine over the same tree."""
        self.machine = replace(self.machine, **members)  # type: ignore[arg-type]

    def flags(self, flags: str) -> None:
        self.write("/proc/cpuinfo", _CPUINFO.format(flags=flags))

    def without_cpuid_bit(self, leaf: int, register: str, bit: int) -> None:
        """Take a bit out of sub-leaf 0 of a leaf."""
        known = dict(_CPUID)
        before = known[leaf, 0]
        known[leaf, 0] = before._replace(**{register: getattr(before, register) & ~bit})
        self.change(cpuid=lambda asked, sub: known.get((asked, sub)))

    def epc(self, *sizes_gib: int) -> None:
        """Protected memory of each node."""
        for node, size in enumerate(sizes_gib):
            self.write(f"/sys/devices/system/node/node{node}/x86/sgx_total_bytes", f"{size * GIB}\n")

    def gramine(self, version: str, mode: str = "serve sgx") -> None:
        """Install a fake ``gramine-sgx`` that says this version and starts enclaves of this mode."""
        become = f"exec {shlex.quote(sys.executable)} -I {FAKE_GRAMINE} {shlex.quote(mode)}"
        program = f"""#!/bin/sh
[ "$1" = --version ] && echo "Gramine {version} (0123456789abcdef)" && exit
{become} "$@"
"""
        self.write("/usr/bin/gramine-sgx", program, 0o755)

    def close(self) -> None:
        self.aesm.close()
        self.pccs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def machine_over(root: Path) -> Machine:
    """The machine whose files lie below ``root``."""
    return Machine(
        root=root,
        architecture="x86_64",
        user_id=_USER_ID,
        group_ids=frozenset({_USER_ID}),
        search_path="/usr/local/bin:/usr/bin",
        cpuid=lambda leaf, subleaf: _CPUID.get((leaf, subleaf)),
        clock_state=lambda: ClockState(synchronised=True, max_error_s=0.01),
        now_s=lambda: NOW_S,
        free_bytes=lambda _path: 100 * GIB,
    )


def sgx_server(root: Path) -> SgxServer:
    """Build it; ``root`` has to be a short path, because a socket lies below it."""
    pccs = socket.create_server(("127.0.0.1", 0))
    aesm = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server = SgxServer(
        root=root,
        machine=machine_over(root),
        wishes=Wishes(
            host="127.0.0.1",
            port=0,
            state=root / "state",
            catalog=None,
            image=root / "image",
            endorsements=root / "endorsements.json",
        ),
        aesm=aesm,
        pccs=pccs,
    )
    server.flags(_FLAGS)
    server.write("/proc/sys/kernel/osrelease", RELEASE + "\n")
    server.write(f"/boot/config-{RELEASE}", "CONFIG_X86=y\nCONFIG_X86_SGX=y\n")
    server.write("/proc/meminfo", "MemTotal: 263000000 kB\nHugePages_Total: 0\nHugepagesize: 2048 kB\n")
    server.write("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
    server.epc(64, 64)
    server.write("/dev/sgx_enclave", "", 0o666)
    server.write("/dev/sgx_provision", "", 0o660)
    group_id = (root / "dev/sgx_provision").stat().st_gid
    server.write("/etc/group", f"root:x:{group_id + 1}:\nsgx_prv:x:{group_id}:aesmd\n")
    server.write("/etc/passwd", f"aesmd:x:{_USER_ID + 1}:{_USER_ID + 1}::/var/opt/aesmd:/usr/sbin/nologin\n")
    server.write("/usr/lib/x86_64-linux-gnu/libdcap_quoteprov.so.1", "")
    (root / "var/run/aesmd").mkdir(parents=True)
    aesm.bind(str(root / "var/run/aesmd/aesm.socket"))
    aesm.listen()
    url = f"http://127.0.0.1:{pccs.getsockname()[1]}/sgx/certification/v4/"
    server.write("/etc/sgx_default_qcnl.conf", qcnl(url))
    server.gramine("1.9")
    make_image(root / "image")
    dated = {"nextUpdate": "2026-12-20T00:00:00Z"}
    server.write(
        "/endorsements.json", json.dumps({"tcb_info": json.dumps(dated), "qe_identity": json.dumps(dated)})
    )
    return server


def qcnl(url: str, **members: object) -> str:
    """As the package installs it: JSON with comments."""
    return "// the address of the PCCS\n" + json.dumps(
        {"pccs_url": url, "use_secure_cert": True, **members}, indent=2
    )


def make_image(
    directory: Path,
    *,
    port: int | None = None,
    attester: str = "gramine",
    config: str = "",
    weights: bool = True,
    **changes: object,
) -> Path:
    """A small image as ``adyton-host manifest`` lays it out, with a SIGSTRUCT that holds :data:`MRENCLAVE`.

    Args:
        directory: Where; what is there is replaced.
        port: Of the enclave; any free one otherwise.
        attester: As its configuration says.
        config: Its whole configuration, in place of a short one.
        weights: Whether the manifest lets it read any.
        changes: Members of the manifest that shall be other than in the template.
    """
    with socket.create_server(("127.0.0.1", 0)) as trial:
        port = trial.getsockname()[1] if port is None else port
    config = config or _CONFIG.format(port=port, attester=attester, digest="sha256:" + "9f" * 32)
    files = dict.fromkeys(("gramine/libsysdb.so", "lib/libc.so.6", "python/bin/python3"), b"")
    files["adyton/enclave.toml"] = config.encode()
    for name, data in files.items():
        path = directory / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (directory / "models").mkdir(exist_ok=True)
    (directory / "models/m.gguf").write_bytes(b"GGUF")
    digests = {f"file:root/{name}": hashlib.sha256(data).hexdigest() for name, data in files.items()}
    filled = template.fill(
        (MANIFESTS / template.TEMPLATE).read_text(),
        {
            "libos_sha256": f'sha256 = "{digests["file:root/gramine/libsysdb.so"]}"',
            "model_mounts": template.lines(
                ['{ path = "/models/m.gguf", uri = "file:models/m.gguf" }'] * weights
            ),
            "allowed_files": template.lines(['"file:models/m.gguf"'] * weights),
            "trusted_files": template.lines(
                template.inline({"uri": uri, "sha256": digest}) for uri, digest in sorted(digests.items())
            ),
            "stack_size": "8M",
            "fds_limit": "1024",
            "remote_attestation": "dcap",
            "edmm_enable": "true",
            "enclave_size": "8G",
            "max_threads": "64",
            "avx": "required",
            "avx512": "required",
            "amx": "disabled",
        },
    )
    document = tomllib.loads(filled.decode())
    document["sgx"] |= changes
    manifest = render_toml(document)
    (directory / "adyton.manifest").write_text(manifest)
    (directory / "adyton.manifest.sgx").write_text(manifest)
    (directory / "adyton.sig").write_bytes(bytes(960) + MRENCLAVE + bytes(1808 - 992))
    return directory
