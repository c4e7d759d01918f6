# SPDX-License-Identifier: Apache-2.0
"""The servers that are compared, each started with the same settings as far as it has them.

``llama-server``  the C++ server of llama.cpp, built by ``llama_server.py`` from the source that our wheel is built
from. ``sealed``  the appliance: SDK, relay, enclave. ``plain``  our engine and API alone, over HTTP in the clear.
``python-server``  llama-cpp-python's own server, in a private virtual environment with our wheel.

No server may reuse a prompt: llama-server's caches are switched off three times over, ours are off by default.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import httpx
import psutil

import llama_server
from adyton_host.catalog import CatalogModel
from adyton_host.enclave_config import EnclaveConfig
from adyton_protocol.model_identity import ModelPin
from appliance_process import ROOT, running
from generator import Generator, Way

PeerName = Literal["llama-server", "sealed", "plain", "python-server"]
KvType = Literal["f16", "q8_0"]

MANIFESTS: Final = ROOT / "manifests"
_GGML_TYPES: Final[dict[KvType, int]] = {"f16": 1, "q8_0": 8}
_START_TIMEOUT_S: Final = 180.0
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every server is started with; sizes in tokens.

    Attributes:
        path: The GGUF file, and ``pin`` what it holds.
        n_ctx: Most tokens of one sequence.
        n_cells: KV cells that all sequences share.
        sequences: Most sequences at once, at least the number of clients.
        threads: Compute threads, for prefill and decode.
        peer_way: How the generator reaches servers in the clear.
        unified: One KV buffer for all of llama-server's slots, as ours.
    """

    path: Path
    pin: ModelPin
    n_ctx: int
    n_cells: int
    sequences: int = 32
    threads: int = 1
    n_batch: int = 512
    n_ubatch: int = 512
    kv_type_k: KvType = "f16"
    kv_type_v: KvType = "q8_0"
    peer_way: Way = "httpx"
    unified: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of a server's processes in bytes: resident, proportional, and the most that was ever resident."""

    rss_bytes: int
    pss_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A running server and the generator that loads it.

    Attributes:
        processes: The server's processes by role.
        extra: Members that every request body to this server carries.
    """

    name: PeerName
    processes: dict[str, psutil.Process]
    generator: Generator
    extra: dict[str, object] = field(default_factory=dict)

    def cpu_s(self) -> dict[str, float]:
        """CPU time of each process since its start."""
        return {
            role: (times := process.cpu_times()).user + times.system
            for role, process in self.processes.items()
        }

    def memory(self) -> Memory:
        """Memory of all processes together."""
        full = [process.memory_full_info() for process in self.processes.values()]
        return Memory(
            rss_bytes=sum(info.rss for info in full),
            pss_bytes=sum(info.pss for info in full),
            peak_bytes=sum(_peak_bytes(process.pid) for process in self.processes.values()),
        )


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _process(
    command: list[str], directory: Path, url: str, ready_path: str, environment: dict[str, str] | None = None
) -> Iterator[psutil.Process]:
    """Run a server until the block ends; enters it once ``ready_path`` answers 200."""
    log_path = directory / "server.log"
    with (
        log_path.open("wb") as log,
        subprocess.Popen(command, cwd=directory, stdout=log, stderr=log, env=environment) as server,
    ):
        try:
            for _ in range(int(_START_TIMEOUT_S / _POLL_S)):
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(url + ready_path, trust_env=False).status_code == httpx.codes.OK:
                        break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(_POLL_S)
                    break
            else:
                server.kill()
            if server.poll() is not None:
                tail = log_path.read_text(errors="replace")[-2000:]
                raise SystemExit(f"{Path(command[0]).name} did not start:\n{tail}")
            yield psutil.Process(server.pid)
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()


@contextlib.contextmanager
def _generator(way: Way, url: str, simulation: Path | None = None) -> Iterator[Generator]:
    generator = Generator(way, url, simulation)
    try:
        yield generator
    finally:
        generator.close()


# --- llama-server -------------------------------------------------------------------------------------


def llama_server_options(settings: Settings) -> list[str]:
    """The command line that gives llama-server our settings."""
    return [
        "--model", str(settings.path), "--ctx-size", str(settings.n_cells),
        "--parallel", str(settings.sequences), "--kv-unified" if settings.unified else "--no-kv-unified",
        "--batch-size", str(settings.n_batch), "--ubatch-size", str(settings.n_ubatch),
        "--threads", str(settings.threads), "--threads-batch", str(settings.threads),
        "--flash-attn", "on", "--cache-type-k", settings.kv_type_k, "--cache-type-v", settings.kv_type_v,
        "--cache-ram", "0", "--no-cache-prompt", "--no-context-shift", "--ctx-checkpoints", "0",
        "--load-mode", "none", "--fit", "off", "--no-ui", "--log-disable", "--host", "127.0.0.1",
    ]  # fmt: skip


@contextlib.contextmanager
def _llama_server(settings: Settings, directory: Path) -> Iterator[Peer]:
    program = llama_server.llama_server()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(program), *llama_server_options(settings), "--port", str(port)]
    with (
        _process(command, directory, url, "/health", llama_server.environment(program)) as process,
        _generator(settings.peer_way, url) as generator,
    ):
        yield Peer(
            name="llama-server",
            processes={"server": process},
            generator=generator,
            extra={"cache_prompt": False},
        )


# --- Ours ---------------------------------------------------------------------------------------------


def _model(settings: Settings) -> CatalogModel:
    return CatalogModel(
        name="bench",
        path=settings.path,
        content=settings.pin.content,
        weights=settings.pin.weights,
        license="Apache-2.0",
        n_ctx=settings.n_ctx,
        role="generator",
        sampling={},
    )


def engine_overrides(settings: Settings) -> dict[str, dict[str, object]]:
    """The members of ``enclave.toml`` that an operator would set for these settings."""
    return {
        "engine": {
            "threads": settings.threads,
            "n_ctx_total": settings.n_cells,
            "n_batch": settings.n_batch,
            "n_ubatch": settings.n_ubatch,
            "kv_type_k": settings.kv_type_k,
            "kv_type_v": settings.kv_type_v,
        },
        "limits": {"max_sequences": settings.sequences},
    }


def _toml(tables: dict[str, dict[str, object]]) -> str:
    lines: list[str] = []
    for name, members in tables.items():
        lines.append(f"[{name}]")
        lines += [
            f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
            for key, value in members.items()
        ]
    return "\n".join(lines) + "\n"


def write_overrides(settings: Settings, directory: Path, **limits: int) -> Path:
    """An operator's ``--enclave-config`` file for these settings, with more ``limits`` if given."""
    tables = engine_overrides(settings)
    tables["limits"] |= limits
    path = directory / "enclave-overrides.toml"
    path.write_text(_toml(tables))
    return path


def write_catalog(settings: Settings, directory: Path) -> Path:
    """A catalog with the one model."""
    catalog = directory / "catalog.toml"
    catalog.write_text(
        f'version = 1\n\n[[model]]\nname = "bench"\nfile = "{settings.path}"\n'
        f'content = "{settings.pin.content}"\nweights = "{settings.pin.weights}"\n'
        f'license = "Apache-2.0"\nn_ctx = {settings.n_ctx}\nrole = "generator"\n'
    )
    return catalog


@contextlib.contextmanager
def sealed(settings: Settings, directory: Path, *, program: Sequence[str] | None = None) -> Iterator[Peer]:
    """The appliance; ``program`` stands in for ``adyton-host``."""
    overrides = write_overrides(settings, directory)
    options = ("--catalog", str(write_catalog(settings, directory)), "--enclave-config", str(overrides))
    with (
        running(directory, *options, **({} if program is None else {"program": program})) as appliance,
        _generator("sealed", appliance.url, appliance.simulation_dir) as generator,
    ):
        processes = {"host": psutil.Process(appliance.host.pid), "enclave": appliance.enclave}
        yield Peer(name="sealed", processes=processes, generator=generator)


@contextlib.contextmanager
def _plain(settings: Settings, directory: Path) -> Iterator[Peer]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config = EnclaveConfig(
        simulation_platform=directory, models=(_model(settings),), overrides=engine_overrides(settings)
    )
    (directory / "enclave.toml").write_text(config.to_toml(port=port))
    command = [sys.executable, str(ROOT / "bench" / "plain_server.py")]
    with (
        _process(command, directory, url, "/readyz") as process,
        _generator(settings.peer_way, url) as generator,
    ):
        yield Peer(name="plain", processes={"engine": process}, generator=generator)


# --- llama-cpp-python's server ------------------------------------------------------------------------


def _private_python() -> Path:
    """An interpreter with our wheel and the extra packages that its server wants; made once."""
    wheel = Path((ROOT / ".venv" / "llama-wheel").read_text().strip())
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adyton" / "bench-python-server"
    )
    home = cache / wheel.parent.name
    ready = home / ".ready"
    if not ready.exists():
        shutil.rmtree(home, ignore_errors=True)
        venv.EnvBuilder(with_pip=True).create(home)
        subprocess.run(
            [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--constraint", str(ROOT / "constraints.txt"), f"llama-cpp-python[server] @ {wheel.as_uri()}"],
            check=True, stdout=sys.stderr,
        )  # fmt: skip
        ready.touch()
    return home / "bin" / "python"


@contextlib.contextmanager
def _python_server(settings: Settings, directory: Path) -> Iterator[Peer]:
    python = _private_python()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        str(python), "-m", "llama_cpp.server", "--model", str(settings.path), "--host", "127.0.0.1",
        "--port", str(port), "--n_ctx", str(settings.n_ctx), "--n_batch", str(settings.n_batch),
        "--n_ubatch", str(settings.n_ubatch), "--n_threads", str(settings.threads),
        "--n_threads_batch", str(settings.threads), "--flash_attn", "true", "--use_mmap", "false",
        "--type_k", str(_GGML_TYPES[settings.kv_type_k]), "--type_v", str(_GGML_TYPES[settings.kv_type_v]),
        # It would abort a running stream whenever another request arrives.
        "--interrupt_requests", "false", "--verbose", "false",
    ]  # fmt: skip
    with (
        _process(command, directory, url, "/v1/models") as process,
        _generator(settings.peer_way, url) as generator,
    ):
        yield Peer(name="python-server", processes={"server": process}, generator=generator)


_STARTERS: Final[dict[PeerName, Callable[[Settings, Path], contextlib.AbstractContextManager[Peer]]]] = {
    "llama-server": _llama_server,
    "sealed": sealed,
    "plain": _plain,
    "python-server": _python_server,
}


@contextlib.contextmanager
def started(name: PeerName, settings: Settings) -> Iterator[Peer]:
    """Run a server in a directory of its own."""
    with (
        tempfile.TemporaryDirectory(prefix=f"adyton-bench-{name}-") as directory,
        _STARTERS[name](settings, Path(directory)) as peer,
    ):
        yield peer
