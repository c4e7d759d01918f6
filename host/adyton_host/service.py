# SPDX-License-Identifier: Apache-2.0
"""One running host: relay and supervisor in one event loop, from start to orderly end."""

import asyncio
import contextlib
import logging
import logging.handlers
import os
import signal
import socket
import tomllib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx
import uvicorn
import uvloop
from fastapi import FastAPI
from typing_extensions import override

from adyton_host import logs
from adyton_host.app import HostParts, create_app
from adyton_host.config import HostSettings
from adyton_host.endorsements import EndorsementRefresher, RefreshSettings, reports_of
from adyton_host.launching import SGX
from adyton_host.metrics import Metrics
from adyton_host.passthrough import Passthrough
from adyton_host.relay import Relay, enclave_client
from adyton_host.routing import RoutingTable
from adyton_host.simulation import SimulationDir
from adyton_host.state import StateDir, hold_simulation_dir, hold_state_dir
from adyton_host.supervisor import EnclaveLaunch, Supervisor
from adyton_protocol.errors import ConfigError

_LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- translated, not bound
_BACKLOG: Final = 2048
_MAX_CONNECTIONS: Final = 4096
_KEEP_ALIVE_S: Final = 30
_MAX_LOG_BYTES: Final = 16 * 1024 * 1024
_KEPT_LOGS: Final = 3
_STARTED_POLL_S: Final = 0.01
_SERVING_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a host says about itself once its enclave attests.

    Attributes:
        mrenclave: What the image was signed as, in hexadecimal digits; None where there is no signed image.
        waiting: Sealed models whose keys the enclave waits for; empty when it serves.
        ra_tls_url: Where the second channel is passed through, or None.
    """

    base_url: str
    pid: int
    enclave_pid: int | None
    model: str
    simulated: bool
    state_dir: Path
    simulation_dir: Path | None
    mrenclave: str | None = None
    waiting: tuple[str, ...] = ()
    ra_tls_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run.

    Attributes:
        settings: Addresses, directories, limits.
        launch: The enclave.
        model: Name of the model that it serves.
        simulation: The simulated platform; None when the hardware is real.
        prepare: Makes the platform ready; called once its directory is ours.
        endorsements: The document that clients may fetch here, or None.
        refresh: Keeps that document fresh; None leaves it alone.
        mrenclave: What the image was signed as, for the operator's eyes.
    """

    settings: HostSettings
    launch: EnclaveLaunch
    model: str
    simulation: SimulationDir | None = None
    prepare: Callable[[], None] = lambda: None
    endorsements: Path | None = None
    refresh: RefreshSettings | None = None
    mrenclave: str | None = None

    @property
    def simulated(self) -> bool:
        """Whether anything but hardware answers challenges; announced to clients, who decide for themselves."""
        return self.launch.tee_type != SGX

    def ra_tls_target(self) -> int | None:
        """The loopback port on which the enclave's configuration opens the second channel, or None."""
        port = tomllib.loads(self.launch.config).get("ra_tls_port")
        return port if type(port) is int else None


class _Server(uvicorn.Server):
    """uvicorn, but its owner handles the signals: it would end the process before the enclave is stopped."""

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """Take the relay's address before anything is started.

    Raises:
        ConfigError: It is taken, forbidden or not an address of this machine.
    """
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise ConfigError(f"--host {host!r} is not an address: {error.strerror}") from error
    # asyncio turns Nagle's algorithm off only for sockets that name TCP as their protocol; with it on, small
    # chunks wait 40 ms for an acknowledgement.
    listener = socket.socket(info[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(info[4])
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port (0 for any)"
        ) from error
    return listener


def base_url_of(listener: socket.socket) -> str:
    """A URL under which the relay answers; by loopback when it listens on every address."""
    host, port = listener.getsockname()[:2]
    host = _LOOPBACK_OF.get(host, host)
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


@contextlib.asynccontextmanager
async def serving(
    app: FastAPI, listener: socket.socket, *, drain_s: int
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve ``app`` on ``listener`` inside the block; the task ends only when serving does."""
    server = _Server(
        uvicorn.Config(
            app,
            # The relay handles every token of every stream; these two halve what a chunk costs.
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=drain_s,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 -- uvicorn offers no event
            await asyncio.sleep(_STARTED_POLL_S)
        yield task
    finally:
        server.should_exit = True
        await task


class Signals:
    """SIGTERM, SIGINT and SIGHUP ask for an orderly end."""

    def __init__(self) -> None:
        """Start listening; needs the running loop of the main thread."""
        self.stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop.set)


def up(plan: Plan, announce: Callable[[Ready], None]) -> None:
    """Run a host until a signal asks it to end; call ``announce`` once its enclave attests.

    When it waits for keys of sealed models, ``announce`` says so, and is called again once they are served.

    Raises:
        ConfigError: A directory or the address is taken.
        SetupError: The simulated platform could not be prepared.
        EnclaveStartError: The enclave never attested.
    """
    settings = plan.settings
    with (
        hold_state_dir(settings.state_dir) as state,
        _hold_platform(plan.simulation),
        contextlib.closing(bind(settings.host, settings.port)) as listener,
        contextlib.closing(_open_log(state)),
        contextlib.ExitStack() as stack,
    ):
        tls_listener = stack.enter_context(_tls_listener(plan))
        plan.prepare()
        uvloop.run(_run(plan, state, listener, tls_listener, announce))


def _hold_platform(simulation: SimulationDir | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if simulation is None else hold_simulation_dir(simulation.path)


@contextlib.contextmanager
def _tls_listener(plan: Plan) -> Iterator[socket.socket | None]:
    """Take the address of the second channel, if there is one.

    Raises:
        ConfigError: It is taken, or the enclave does not open that channel.
    """
    if plan.settings.ra_tls_port is None:
        yield None
        return
    if plan.ra_tls_target() is None:
        raise ConfigError(
            "--ra-tls-port: this enclave's configuration opens no such channel; give it ra_tls_port and render it again"
        )
    with contextlib.closing(bind(plan.settings.host, plan.settings.ra_tls_port)) as listener:
        yield listener


async def _run(
    plan: Plan,
    state: StateDir,
    listener: socket.socket,
    tls_listener: socket.socket | None,
    announce: Callable[[Ready], None],
) -> None:
    settings, signals = plan.settings, Signals()
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(enclave_client(settings.limits))
        table, metrics = RoutingTable(client), Metrics()
        supervisor = Supervisor(
            plan.launch,
            state=state,
            table=table,
            client=client,
            timing=settings.timing,
            on_restart=metrics.enclave_restarted,
        )
        # The enclave is stopped after the relay has drained, and before the client closes.
        stack.push_async_callback(supervisor.stop)
        app = create_app(
            HostParts(
                relay=Relay(client, table, settings.limits),
                table=table,
                metrics=metrics,
                endorsements=plan.endorsements,
                releases=state.releases,
                simulated=plan.simulated,
            )
        )
        ready = Ready(
            base_url=base_url_of(listener),
            pid=os.getpid(),
            enclave_pid=None,
            model=plan.model,
            simulated=plan.simulated,
            state_dir=settings.state_dir,
            simulation_dir=None if plan.simulation is None else plan.simulation.path,
            mrenclave=plan.mrenclave,
            ra_tls_url=None
            if tls_listener is None
            else base_url_of(tls_listener).replace("http:", "https:", 1),
        )
        state.write_record(
            {"pid": ready.pid, "base_url": ready.base_url, "model": ready.model, "simulated": ready.simulated}
        )
        server = await stack.enter_async_context(serving(app, listener, drain_s=settings.drain_s))
        if plan.refresh is not None:
            refresher = EndorsementRefresher(
                plan.refresh, reports_of(client, table), on_refreshed=metrics.endorsements_refreshed
            )
            stack.push_async_callback(_end, asyncio.create_task(refresher.run()))
        if tls_listener is not None:
            passthrough = Passthrough(_target_of(plan, table), settings.passthrough)
            await stack.enter_async_context(passthrough.serving(tls_listener))
        if await _unless_stopped(supervisor.start(), signals):
            ready = replace(ready, enclave_pid=supervisor.pid)
            if waiting := table.waiting():
                announce(replace(ready, waiting=waiting))
                released = asyncio.create_task(_until_serving(table))
                stack.callback(released.cancel)
                await _first_of(released, signals)
            if not signals.stop.is_set():
                announce(replace(ready, enclave_pid=supervisor.pid))
                await _first_of(server, signals)
        logs.log("stopping")


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _target_of(plan: Plan, table: RoutingTable) -> Callable[[], tuple[str, int] | None]:
    """Where the second channel of a ready enclave is."""
    port = plan.ra_tls_target()

    def target() -> tuple[str, int] | None:
        base_url = table.any_ready()
        host = None if base_url is None else httpx.URL(base_url).host
        return None if host is None or port is None else (host, port)

    return target


async def _until_serving(table: RoutingTable) -> None:
    """Wait until the keys of sealed models have been released; the table asks the enclave in the background."""
    while not table.serving_count():  # noqa: ASYNC110 -- what it waits for happens in another process
        await asyncio.sleep(_SERVING_POLL_S)


async def _unless_stopped(start: Coroutine[None, None, None], signals: Signals) -> bool:
    """Await ``start``, but give up when asked to stop; True when it finished."""
    starting = asyncio.ensure_future(start)
    await _first_of(starting, signals)
    if starting.done():
        await starting
        return True
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    return False


async def _first_of(task: "asyncio.Future[None]", signals: Signals) -> None:
    """Wait for ``task`` or for the wish to stop."""
    stop = asyncio.create_task(signals.stop.wait())
    await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    await asyncio.gather(stop, return_exceptions=True)


def _open_log(state: StateDir) -> logging.Handler:
    handler = logging.handlers.RotatingFileHandler(
        state.relay_log, maxBytes=_MAX_LOG_BYTES, backupCount=_KEPT_LOGS, encoding="utf-8"
    )
    logs.configure(handler)
    return handler
