# SPDX-License-Identifier: Apache-2.0
"""Makes the corpus of manifests in ``tests/vectors/manifests``.

There is one that the linter passes, one for each of its rules that breaks that rule alone, and combinations.
``python tests/manifest_corpus.py`` writes them; a test compares.

Each file says in its second line what it is refused for.
"""

import copy
import hashlib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from adyton_host.enclave_config import render_toml

CORPUS: Final = Path(__file__).parent / "vectors" / "manifests"
SECURE: Final = "production"
BUILT_AT_TEST_TIME: Final = frozenset({"too-many-files"})
"""Too large to be kept."""

_DIGEST: Final = "ab" * 32
_PIN: Final = f"sha256:{_DIGEST}"
_LICENCE: Final = "# SPDX-License-Identifier: Apache-2.0\n"

CONFIGURATION: Final = f"""\
version = 1
listen_host = "127.0.0.1"
listen_port = 8471
attester = "gramine"

[engine]
threads = 2

[[model]]
name = "small"
path = "/models/small.gguf"
content = "{_PIN}"
weights = "{_PIN}"
n_ctx = 1024

[[model]]
name = "judge"
role = "scorer"
path = "/models/judge.gguf"
content = "{_PIN}"
weights = "{_PIN}"
n_ctx = 1024
adapter = "/models/judge.toml"
adapter_digest = "{_PIN}"
"""
SIMULATED: Final = CONFIGURATION.replace(
    'attester = "gramine"', 'attester = "simulated"\nsimulation_platform = "/adyton/platform"'
)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


BASE: Final = tomllib.loads(f"""
[libos]
entrypoint = "/python/bin/python3"
[loader]
argv = ["/python/bin/python3", "-I", "-B", "-m", "adyton_enclave"]
log_level = "error"
[loader.entrypoint]
uri = "file:root/gramine/libsysdb.so"
sha256 = "{_DIGEST}"
[loader.env]
LD_LIBRARY_PATH = "/lib:/python/lib"
MALLOC_ARENA_MAX = "1"
OPENBLAS_NUM_THREADS = "1"
RAYON_NUM_THREADS = "1"
[fs]
start_dir = "/adyton"
mounts = [
  {{ path = "/lib", uri = "file:root/lib" }},
  {{ path = "/python", uri = "file:root/python" }},
  {{ path = "/adyton", uri = "file:root/adyton" }},
  {{ path = "/models/small.gguf", uri = "file:models/small.gguf" }},
  {{ path = "/models/judge.gguf", uri = "file:models/judge.gguf" }},
  {{ path = "/models/judge.toml", uri = "file:models/judge.toml" }},
]
[fs.root]
type = "tmpfs"
[sys]
disallow_subprocesses = true
enable_sigterm_injection = true
[sgx]
debug = false
remote_attestation = "dcap"
edmm_enable = true
enclave_size = "2G"
max_threads = 52
allowed_files = ["file:models/small.gguf", "file:models/judge.gguf", "file:models/judge.toml"]
trusted_files = [
  {{ uri = "file:root/lib/libc.so.6", sha256 = "{_DIGEST}" }},
  {{ uri = "file:root/python/bin/python3", sha256 = "{_DIGEST}" }},
  {{ uri = "file:root/adyton/enclave.toml", sha256 = "{_sha256(CONFIGURATION)}" }},
]
[sgx.cpu_features]
avx = "required"
avx512 = "required"
amx = "disabled"
mpx = "disabled"
pkru = "disabled"
""")

Edit = Callable[[dict[str, Any]], None]
_GONE: Final = object()


def put(option: str, value: object) -> Edit:
    """Set an option."""

    def edit(document: dict[str, Any]) -> None:
        *above, last = option.split(".")
        for key in above:
            document = document.setdefault(key, {})
        if value is _GONE:
            del document[last]
        else:
            document[last] = value

    return edit


def drop(option: str) -> Edit:
    """Leave an option out."""
    return put(option, _GONE)


def add(option: str, *items: object) -> Edit:
    """Append to a list."""

    def edit(document: dict[str, Any]) -> None:
        *above, last = option.split(".")
        for key in above:
            document = document[key]
        document[last] = [*document.get(last, []), *items]

    return edit


def trust(uri: str) -> Edit:
    """List one more trusted file."""
    return add("sgx.trusted_files", {"uri": uri, "sha256": _DIGEST})


def mount(path: str, uri: str, **more: str) -> Edit:
    """Mount something more."""
    return add("fs.mounts", {**more, "path": path, "uri": uri})


def without_models(document: dict[str, Any]) -> None:
    """No allowed file, for cases in which the configuration cannot be read and nothing is waived."""
    document["sgx"]["allowed_files"] = []
    document["fs"]["mounts"] = [each for each in document["fs"]["mounts"] if "/models/" not in each["path"]]


def _configuration(uri: str | None, digest: str) -> Edit:
    def edit(document: dict[str, Any]) -> None:
        kept = [each for each in document["sgx"]["trusted_files"] if "enclave.toml" not in each["uri"]]
        document["sgx"]["trusted_files"] = kept + ([] if uri is None else [{"uri": uri, "sha256": digest}])

    return edit


def _simulated_configuration(document: dict[str, Any]) -> None:
    document["fs"]["mounts"][2]["uri"] = "file:root/simulated"
    _configuration("file:root/simulated/enclave.toml", _sha256(SIMULATED))(document)


ALONE: Final[dict[str, tuple[Edit, ...]]] = {
    "unknown-option": (put("sgx.debgu", False),),
    "debug-enclave": (put("sgx.debug", True),),
    "statistics": (put("sgx.enable_stats", True),),
    "profiling": (put("sgx.profile", {"enable": "main", "mode": "aex"}),),
    "vtune": (put("sgx.vtune_profile", True),),
    "host-arguments": (put("loader.insecure__use_cmdline_argv", True),),
    "host-environment": (put("loader.insecure__use_host_env", True),),
    "fixed-addresses": (put("loader.insecure__disable_aslr", True),),
    "host-eventfd": (put("sys.insecure__allow_eventfd", True),),
    "experimental-flock": (put("sys.experimental__enable_flock", True),),
    "mocked-system-calls": (put("sys.debug__mock_syscalls", [{"name": "getrandom", "return": 0}]),),
    "exitless-calls": (put("sgx.insecure__rpc_thread_num", 8),),
    "blind-memory-faults": (put("sgx.insecure__allow_memfaults_without_exinfo", True),),
    "fault-information": (put("sgx.use_exinfo", True),),
    "keys-in-manifest": (put("fs.insecure__keys", {"default": "00" * 16}),),
    "unknown-files": (put("sgx.file_check_policy", "allow_all_but_log"),),
    "no-remote-attestation": (put("sgx.remote_attestation", "none"),),
    "verbose-log": (put("loader.log_level", "debug"),),
    "log-file": (put("loader.log_file", "gramine.log"),),
    "host-names": (put("sys.enable_extra_runtime_domain_names_conf", True),),
    "subprocesses": (drop("sys.disallow_subprocesses"),),
    "no-sigterm": (drop("sys.enable_sigterm_injection"),),
    "unchecked-pointers": (put("libos.check_invalid_pointers", False),),
    "device-calls": (put("sys.allowed_ioctls", [{"request_code": 0x5401}]),),
    "sealing-masks": (put("sgx.seal_key", {"flags_mask": "0x0000000000000000"}),),
    "preheat-with-edmm": (put("sgx.preheat_enclave", True),),
    "undecided-cpu-features": (put("sgx.cpu_features.avx512", "unspecified"),),
    "enclave-size": (put("sgx.enclave_size", "3G"),),
    "too-few-threads": (put("sgx.max_threads", 5),),
    "arguments-not-fixed": (drop("loader.argv"),),
    "python-not-isolated": (put("loader.argv", ["/python/bin/python3", "-m", "adyton_enclave"]),),
    "environment-passthrough": (put("loader.env.SERVERS", {"passthrough": True}),),
    "environment-file": (put("loader.env_src_file", "file:root/adyton/environment"),),
    "injecting-variable": (put("loader.env.LD_PRELOAD", "/python/lib/libhook.so"),),
    "unknown-variable": (put("loader.env.HTTPS_PROXY", "http://192.0.2.1:3128"),),
    "library-path": (put("loader.env.LD_LIBRARY_PATH", "/python/lib:/lib"),),
    "openmp": (put("loader.env.OMP_NUM_THREADS", "4"),),
    "mapped-model": (put("loader.env.LLAMA_ARG_MMAP", "1"),),
    "many-arenas": (drop("loader.env.MALLOC_ARENA_MAX"),),
    "host-sized-pool": (drop("loader.env.OPENBLAS_NUM_THREADS"),),
    "simulated-attester": (_simulated_configuration,),
    "configuration-not-measured": (
        without_models,
        _configuration(None, ""),
        trust("file:root/adyton/build/root.toml"),
    ),
    "configuration-changed": (without_models, _configuration("file:root/adyton/enclave.toml", _DIGEST)),
    "root-on-host": (put("fs.root", {"type": "chroot", "uri": "file:root"}),),
    "untrusted-shared-memory": (mount("/shared", "dev:/dev/shared", type="untrusted_shm"),),
    "encrypted-mount": (mount("/state", "file:state", type="encrypted", key_name="_sgx_mrenclave"),),
    "device": (mount("/dev/net", "dev:/dev/net/tun"),),
    "unix-socket": (add("loader.argv", "--uds"),),
    "host-path": (mount("/etc/hosts", "file:/etc/hosts"), trust("file:/etc/hosts")),
    "mount-without-files": (mount("/etc", "file:etc"),),
    "allowed-file": (add("sgx.allowed_files", "file:scratch.txt"),),
    "allowed-over-measured": (trust("file:models/judge.toml"),),
    "file-without-hash": (add("sgx.trusted_files", {"uri": "file:root/python/lib/"}),),
    "file-listed-twice": (trust("file:root/python/bin/python3"),),
    "bytecode": (trust("file:root/python/lib/os.cpython-311.pyc"),),
    "simulator": (trust("file:root/python/site-packages/adyton_enclave/simulation.py"),),
    "model-as-trusted-file": (trust("file:root/python/lib/other.gguf"),),
    "too-many-files": tuple(trust(f"file:root/python/lib/{number}.py") for number in range(4000)),
    "library-os-without-hash": (drop("loader.entrypoint.sha256"),),
}

COMBINED: Final[dict[str, tuple[tuple[str, ...], tuple[Edit, ...]]]] = {
    # What a first port to Gramine usually looks like.
    "combination-first-port": (
        ("debug-enclave", "host-arguments", "verbose-log", "no-remote-attestation", "root-on-host", "file-without-hash",
         "host-path", "library-path", "unknown-files"),
        (
            put("sgx.debug", True),
            put("loader.insecure__use_cmdline_argv", True),
            put("loader.log_level", "warning"),
            drop("sgx.remote_attestation"),
            drop("fs.root"),
            mount("/usr/lib", "file:/usr/lib"),
            add("sgx.trusted_files", {"uri": "file:/usr/lib/"}),
            put("loader.env.LD_LIBRARY_PATH", "/usr/lib:/lib"),
            put("sgx.file_check_policy", "allow_all_but_log"),
        ),
    ),
    # One allowed directory undoes everything else.
    "combination-allowed-root": (
        ("allowed-file", "allowed-over-measured"),
        (add("sgx.allowed_files", "file:root"),),
    ),
    # What is left on after a day of measuring.
    "combination-measuring": (
        ("debug-enclave", "statistics", "profiling", "vtune", "exitless-calls", "fault-information"),
        (
            put("sgx.debug", True),
            put("sgx.enable_stats", True),
            put("sgx.profile", {"enable": "all"}),
            put("sgx.vtune_profile", True),
            put("sgx.insecure__rpc_thread_num", 1),
            put("sgx.use_exinfo", True),
        ),
    ),
    # Another configuration than the measured one pins nothing.
    "combination-unpinned-models": (
        ("configuration-changed", "allowed-file"),
        (_configuration("file:root/adyton/enclave.toml", _DIGEST),),
    ),
    # The variant for tests, as it is rendered.
    "combination-simulated": (
        ("no-remote-attestation", "simulated-attester", "simulator"),
        (
            put("sgx.remote_attestation", "none"),
            _simulated_configuration,
            trust("file:root/python/site-packages/adyton_enclave/simulation.py"),
        ),
    ),
}  # fmt: skip


def made(*edits: Edit) -> bytes:
    """The secure manifest after some edits."""
    document = copy.deepcopy(BASE)
    for edit in edits:
        edit(document)
    return render_toml(document).encode()


def corpus() -> dict[str, tuple[frozenset[str], bytes]]:
    """Every manifest by name: the rules that it breaks, and its bytes."""
    found = {SECURE: (frozenset[str](), made())}
    found |= {rule: (frozenset({rule}), made(*edits)) for rule, edits in ALONE.items()}
    found |= {name: (frozenset(rules), made(*edits)) for name, (rules, edits) in COMBINED.items()}
    return found


def files() -> dict[str, str]:
    """Text of every file of the corpus, by path below it."""
    written = {
        f"{name}.toml": f"{_LICENCE}# refused: {', '.join(sorted(rules)) or 'nothing'}\n{data.decode()}"
        for name, (rules, data) in corpus().items()
        if name not in BUILT_AT_TEST_TIME
    }
    return written | {
        "root/adyton/enclave.toml": CONFIGURATION,
        "root/simulated/enclave.toml": SIMULATED,
    }


if __name__ == "__main__":
    for name, text in files().items():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
