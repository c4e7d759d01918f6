# SPDX-License-Identifier: Apache-2.0
"""Rules about single options: of the enclave, of the loader, and of what Gramine emulates.

Sources: Gramine 1.9, "Manifest syntax" and ``libos/src/utils/warn.c`` for what it warns of itself; the rest from
reading and running it (docs/manifest.md).
"""

from collections.abc import Iterable
from typing import Final

from adyton_host.manifest.budget import parse_size
from adyton_host.manifest.rule import Rule, must_be, must_be_absent, must_not_be
from adyton_host.manifest.view import View
from adyton_protocol.errors import ConfigError

MIN_THREADS: Final = 4
"""Main thread, and Gramine's three helpers."""
_QUIET: Final = ("none", "error")
_DECIDED: Final = ("required", "disabled")
_FEATURES: Final = ("avx", "avx512", "amx", "mpx", "pkru")


def _profile(manifest: View) -> Iterable[str]:
    if "profile" in manifest.table("sgx"):
        yield "sgx.profile is set"


def _rpc(manifest: View) -> Iterable[str]:
    number = manifest.option("sgx.insecure__rpc_thread_num")
    if isinstance(number, int) and number > 0:
        yield f"sgx.insecure__rpc_thread_num = {number}"


def _log_level(manifest: View) -> Iterable[str]:
    level = manifest.option("loader.log_level")
    if level is not None and level not in _QUIET:
        yield f"loader.log_level = {level!r}"


def _file_check_policy(manifest: View) -> Iterable[str]:
    policy = manifest.option("sgx.file_check_policy")
    if policy is not None and policy != "strict":
        yield f"sgx.file_check_policy = {policy!r}"


def _preheat(manifest: View) -> Iterable[str]:
    if manifest.option("sgx.preheat_enclave") is True and manifest.option("sgx.edmm_enable") is True:
        yield "sgx.preheat_enclave and sgx.edmm_enable are both true"


def _cpu_features(manifest: View) -> Iterable[str]:
    for feature in _FEATURES:
        option = f"sgx.cpu_features.{feature}"
        if manifest.option(option) not in _DECIDED:
            yield f'{option} is neither "required" nor "disabled"'


def _enclave_size(manifest: View) -> Iterable[str]:
    size = manifest.option("sgx.enclave_size")
    try:
        size_bytes = parse_size(size) if isinstance(size, str) else 0
    except ConfigError:
        size_bytes = 0
    if size_bytes <= 0 or size_bytes & (size_bytes - 1):
        yield f"sgx.enclave_size = {size!r}"


def _threads(manifest: View) -> Iterable[str]:
    threads = manifest.option("sgx.max_threads")
    needed = MIN_THREADS + _configured_threads(manifest)
    if type(threads) is not int or threads < needed:
        yield f"sgx.max_threads = {threads!r}; this enclave needs at least {needed}"


def _configured_threads(manifest: View) -> int:
    engine = {} if manifest.configuration is None else manifest.configuration.get("engine")
    threads = engine.get("threads", 0) if isinstance(engine, dict) else 0
    return threads if type(threads) is int else 0


RULES: Final = (
    must_not_be(
        "debug-enclave",
        "sgx.debug",
        True,
        "the host can read and change the memory of a debug enclave",
    ),
    must_not_be(
        "statistics",
        "sgx.enable_stats",
        True,
        "statistics open threads to debugging and tell the host about what runs inside",
    ),
    Rule("profiling", "a profile samples where the enclave computes, and writes it to the host", _profile),
    must_not_be(
        "vtune",
        "sgx.vtune_profile",
        True,
        "VTune samples where the enclave computes, and needs a debug enclave",
    ),
    must_not_be(
        "host-arguments",
        "loader.insecure__use_cmdline_argv",
        True,
        "the host would choose the command line, and so what the interpreter runs",
    ),
    must_not_be(
        "host-environment",
        "loader.insecure__use_host_env",
        True,
        "the host would choose the environment: LD_PRELOAD alone runs its code",
    ),
    must_not_be(
        "fixed-addresses",
        "loader.insecure__disable_aslr",
        True,
        "without address space layout randomisation an error in memory handling is easier to exploit",
    ),
    must_not_be(
        "host-eventfd",
        "sys.insecure__allow_eventfd",
        True,
        "events between threads would go through the host, which could invent and lose them",
    ),
    must_not_be(
        "experimental-flock",
        "sys.experimental__enable_flock",
        True,
        "Gramine says that this system call may have vulnerabilities",
    ),
    must_be_absent(
        "mocked-system-calls",
        ("sys.debug__mock_syscalls",),
        "a system call that only claims to have worked makes the program unsound",
    ),
    Rule(
        "exitless-calls",
        "threads of the host would serve system calls through shared memory, open to INTEL-SA-00615 and "
        "INTEL-SA-00657; Gramine does not warn of it",
        _rpc,
    ),
    must_not_be(
        "blind-memory-faults",
        "sgx.insecure__allow_memfaults_without_exinfo",
        True,
        "the host could inject memory faults that the enclave cannot tell from its own",
    ),
    must_not_be(
        "fault-information",
        "sgx.use_exinfo",
        True,
        "faults would be handled in the enclave, and runtimes print memory when they handle them; a fault ends it",
    ),
    must_be_absent(
        "keys-in-manifest", ("fs.insecure__keys",), "the host reads the manifest, and so the keys in it"
    ),
    Rule(
        "unknown-files",
        "every file that is neither trusted nor allowed would be read from the host unchecked",
        _file_check_policy,
    ),
    must_be(
        "no-remote-attestation",
        "sgx.remote_attestation",
        "dcap",
        "without quotes nobody can tell this enclave from any program that the host writes",
    ),
    Rule(
        "verbose-log", "warnings and traces tell the host about system calls and their arguments", _log_level
    ),
    must_be_absent(
        "log-file",
        ("loader.log_file",),
        "Gramine's log belongs on standard error, not in a file of the manifest's choice",
    ),
    must_not_be(
        "host-names",
        "sys.enable_extra_runtime_domain_names_conf",
        True,
        "the host would write name servers and its name into the enclave, which resolves no names",
    ),
    must_be(
        "subprocesses",
        "sys.disallow_subprocesses",
        True,
        "a fork starts a second enclave of the same size, and nothing here needs one",
    ),
    must_be(
        "no-sigterm",
        "sys.enable_sigterm_injection",
        True,
        "without SIGTERM the enclave can only be killed, and answers in progress are lost",
    ),
    must_not_be(
        "unchecked-pointers",
        "libos.check_invalid_pointers",
        False,
        "system calls would read and write through pointers that lead nowhere",
    ),
    must_be_absent(
        "device-calls",
        ("sys.allowed_ioctls", "sys.ioctl_structs"),
        "ioctls go to the host as they are and come back as it likes; no device is used",
    ),
    must_be_absent(
        "sealing-masks",
        ("sgx.seal_key",),
        "masks weaken what a sealing key is bound to; the defaults bind it to the whole enclave",
    ),
    Rule("preheat-with-edmm", "there is nothing to heat: Gramine does not start with both", _preheat),
    Rule(
        "undecided-cpu-features",
        'left "unspecified", the host decides which instructions exist, and so which code computes the answers',
        _cpu_features,
    ),
    Rule(
        "enclave-size", "SGX wants a power of two, and a default of 256 MB or 1 TB fits nobody", _enclave_size
    ),
    Rule(
        "too-few-threads",
        "a thread without a slot ends the enclave in the middle of an answer",
        _threads,
    ),
)
