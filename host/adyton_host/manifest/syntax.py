# SPDX-License-Identifier: Apache-2.0
"""The options that Gramine 1.9 knows, and their types.

An option that stands nowhere here is refused: a misspelt one is silently ignored by Gramine, and one of a later version
may mean anything. Source: "Manifest syntax" of Gramine 1.9.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from adyton_host.manifest.rule import Rule
from adyton_host.manifest.view import View

_OPTIONS: Final[Mapping[str, type]] = {
    "libos.entrypoint": str,
    "libos.check_invalid_pointers": bool,
    "loader.entrypoint.uri": str,
    "loader.entrypoint.sha256": str,
    "loader.argv": list,
    "loader.argv_src_file": str,
    "loader.env.*": str,
    "loader.env.*.value": str,
    "loader.env.*.passthrough": bool,
    "loader.env_src_file": str,
    "loader.gid": int,
    "loader.uid": int,
    "loader.insecure__use_cmdline_argv": bool,
    "loader.insecure__use_host_env": bool,
    "loader.insecure__disable_aslr": bool,
    "loader.log_file": str,
    "loader.log_level": str,
    "fs.mounts[].type": str,
    "fs.mounts[].path": str,
    "fs.mounts[].uri": str,
    "fs.mounts[].key_name": str,
    "fs.mounts[].enable_recovery": bool,
    "fs.root.type": str,
    "fs.root.uri": str,
    "fs.root.key_name": str,
    "fs.root.enable_recovery": bool,
    "fs.start_dir": str,
    "fs.insecure__keys.*": str,
    "sgx.allowed_files": list,
    "sgx.cpu_features.avx": str,
    "sgx.cpu_features.avx512": str,
    "sgx.cpu_features.amx": str,
    "sgx.cpu_features.mpx": str,
    "sgx.cpu_features.pkru": str,
    "sgx.debug": bool,
    "sgx.edmm_enable": bool,
    "sgx.enable_stats": bool,
    "sgx.enclave_size": str,
    "sgx.file_check_policy": str,
    "sgx.insecure__allow_memfaults_without_exinfo": bool,
    "sgx.insecure__rpc_thread_num": int,
    "sgx.isvprodid": int,
    "sgx.isvsvn": int,
    "sgx.max_threads": int,
    "sgx.preheat_enclave": bool,
    "sgx.profile.enable": str,
    "sgx.profile.mode": str,
    "sgx.profile.with_stack": bool,
    "sgx.profile.frequency": int,
    "sgx.remote_attestation": str,
    "sgx.seal_key.flags_mask": str,
    "sgx.seal_key.xfrm_mask": str,
    "sgx.seal_key.misc_mask": str,
    "sgx.trusted_files": list,
    "sgx.trusted_files[].uri": str,
    "sgx.trusted_files[].sha256": str,
    "sgx.use_exinfo": bool,
    "sgx.vtune_profile": bool,
    "sys.allowed_ioctls[].request_code": int,
    "sys.allowed_ioctls[].struct": str,
    "sys.brk.max_size": str,
    "sys.disallow_subprocesses": bool,
    "sys.enable_extra_runtime_domain_names_conf": bool,
    "sys.enable_sigterm_injection": bool,
    "sys.experimental__enable_flock": bool,
    "sys.insecure__allow_eventfd": bool,
    "sys.debug__mock_syscalls[].name": str,
    "sys.debug__mock_syscalls[].return": int,
    "sys.stack.size": str,
    "sys.fds.limit": int,
}
_FREE: Final = ("loader.env", "fs.insecure__keys")
"""Tables whose keys are names of the user's."""
_UNCHECKED: Final = ("sys.ioctl_structs",)
"""Described by a language of its own; another rule refuses it."""
_TEXT_LISTS: Final = frozenset({"loader.argv", "sgx.allowed_files"})


def _leaves(table: Mapping[str, Any], prefix: str, shown: str) -> Iterator[tuple[str, str, Any]]:
    """Every value with its place: as the list of options writes it, and as a reader finds it."""
    for key, value in table.items():
        name = f"{prefix}*" if prefix.rstrip(".") in _FREE else f"{prefix}{key}"
        place = f"{shown}{key}"
        match value:
            case _ if place in _UNCHECKED:
                pass
            case Mapping():
                yield from _leaves(value, f"{name}.", f"{place}.")
            case [Mapping(), *_]:
                for at, item in enumerate(value):
                    if isinstance(item, Mapping):
                        yield from _leaves(item, f"{name}[].", f"{place}[{at}].")
                    elif not (name == "sgx.trusted_files" and isinstance(item, str)):
                        yield f"{name}[]", f"{place}[{at}]", item
            case []:
                pass
            case _:
                yield name, place, value


def _unknown(manifest: View) -> Iterable[str]:
    for name, place, value in _leaves(manifest.document, "", ""):
        kind = _OPTIONS.get(name)
        if kind is None:
            yield place
        elif type(value) is not kind:
            yield f"{place} is of the wrong type"
        elif (
            isinstance(value, list)
            and name in _TEXT_LISTS
            and not all(isinstance(item, str) for item in value)
        ):
            yield f"{place} holds something else than texts"


RULES: Final = (
    Rule(
        "unknown-option",
        "Gramine 1.9 does not know it in this place or with this type, so it does not do what somebody meant",
        _unknown,
    ),
)
