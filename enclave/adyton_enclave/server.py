# SPDX-License-Identifier: Apache-2.0
"""The life of an enclave process: listen, load, attest, serve, rotate, stop.

The server listens before the models are loaded, so that the host can see the difference between "not ready" and
"not there". ``/readyz`` turns 200 after the models are loaded, their digests checked, and one quote over the first
keyset has been made.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, MappingProxyType
from typing import Final

import uvicorn

from adyton_enclave.api.answer import Desk
from adyton_enclave.api.app import Api
from adyton_enclave.api.generate import Served
from adyton_enclave.api.ports import Engine as EnginePort
from adyton_enclave.api.ports import Scorer as ScorerPort
from adyton_enclave.api.search_gate import SearchGate
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.attester import Attester
from adyton_enclave.config import Configuration, ModelSettings
from adyton_enclave.engine import Engine, ModelSpec, SamplingParams
from adyton_enclave.engine.loaded_model import identity_of
from adyton_enclave.evidence import EvidenceDesk, TokenBucket
from adyton_enclave.gateway import Gateway, GatewaySettings
from adyton_enclave.http_server import server_config
from adyton_enclave.key_release import KeyRelease
from adyton_enclave.keys import KeyRing, KeyRingSettings
from adyton_enclave.log import Happening, note
from adyton_enclave.outer import Problem, Receive, Scope, Send
from adyton_enclave.pacing import Pacer
from adyton_enclave.privacy import Profile, effective_profile
from adyton_enclave.receipts import ReceiptBook
from adyton_enclave.scoring import Scorer
from adyton_enclave.tls_channel import TlsChannel
from adyton_enclave.tls_front import TlsFront, TlsFrontSettings
from adyton_enclave.weights.model_file import sealed_header
from adyton_enclave.weights.terms import SealedTerms
from adyton_protocol.errors import ConfigError, EngineStopped
from adyton_protocol.keyset import ModelIdentity
from adyton_protocol.media import PROBLEM_UNAVAILABLE
from adyton_protocol.sealed_model import ModelKey

_NOT_READY: Final = Problem(
    status=503, kind=PROBLEM_UNAVAILABLE, detail="the enclave is starting", headers=((b"retry-after", b"1"),)
)
SWITCH_S: Final = 0.0005
"""Of ``sys.setswitchinterval``. After a step the engine's thread waits for the interpreter lock; the event loop gives
it away within this time. The standard 5 ms would be many steps of a small model."""

_NO_SCORERS: Final[Mapping[str, ScorerPort]] = MappingProxyType({})
_CHECK_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the process takes from outside, once, at the edge.

    Attributes:
        monotonic: Seconds by a clock that never goes back; the only one that anything is decided by.
        wall_s: Unix seconds, only for what others read. The host controls it.
        entropy: Source of random bytes.
    """

    monotonic: Callable[[], float]
    wall_s: Callable[[], int]
    entropy: Callable[[int], bytes]


class Front:
    """The ASGI application that is there from the start; the gateway moves in behind it when it is ready.

    Attributes:
        gateway: Answers, once it is there.
        tls: What answers on the second channel, once it is there and if it is configured.
    """

    def __init__(self) -> None:
        self.gateway: Gateway | None = None
        self.tls: TlsFront | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one outer request. Returning without a complete answer cuts the connection."""
        if scope["type"] != "http":
            return
        try:
            if self.gateway is None:
                await _NOT_READY.send(send)
            else:
                await self.gateway(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the server would log the text of the exception
            note(Happening.INTERNAL_ERROR, error=error)


def _silence_libraries() -> None:
    """SECURITY: library loggers write exception texts and tracebacks, which may hold content."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [logging.NullHandler()]
        logger.propagate = False


def _model_spec(model: ModelSettings) -> ModelSpec:
    sampling = model.sampling
    return ModelSpec(
        name=model.name,
        path=str(model.path),
        more_paths=tuple(map(str, model.more_paths)),
        sealed=model.sealed,
        pin=model.pin,
        n_ctx=model.n_ctx,
        generates=model.role == "generator",
        scorer=None if model.scorer_files is None else model.scorer_files.parts,
        hidden_states=model.scorer_files is not None and model.scorer_files.head is not None,
        embeddings=model.embeddings,
        sampling=SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
        ),
    )


def make_engine(configuration: Configuration) -> Engine:
    """The engine that a configuration describes, not started."""
    return Engine(configuration.engine, [_model_spec(model) for model in configuration.models])


def make_ring(configuration: Configuration, engine: EnginePort, surroundings: Surroundings) -> KeyRing:
    """The first keys, once the models are loaded, or while they are sealed: nothing else can become of them."""
    identities = {model.name: model.identity for model in engine.models.values()}
    if not identities:
        specs = [_model_spec(model) for model in configuration.models]
        identities = {spec.name: identity_of(spec, configuration.engine) for spec in specs}
    models = tuple(ModelIdentity(name=name, identity=identity) for name, identity in identities.items())
    return KeyRing(
        KeyRingSettings(
            epoch_s=configuration.epoch_s,
            overlap_s=configuration.overlap_s,
            replay_entries=configuration.limits.replay_entries,
            configuration_digest=configuration.digest,
            models=models,
            ra_tls=configuration.ra_tls_port is not None,
        ),
        monotonic=surroundings.monotonic,
        wall_s=surroundings.wall_s,
        first_key_id=surroundings.entropy(1)[0],
        forget=engine.forget_namespaces,
    )


async def load_scorers(configuration: Configuration, engine: Engine) -> Mapping[str, Scorer]:
    """The scorers of a started engine by name, each checked against its golden vectors.

    Raises:
        AdapterError: A file is not the one that is pinned, does not suit its model, or the scorer gives other scores
            than its golden vectors say.
    """
    scorers: dict[str, Scorer] = {}
    for model in configuration.models:
        if model.scorer_files is not None:
            scorer = Scorer(engine, model.name, await asyncio.to_thread(model.scorer_files.read))
            await scorer.check_golden()
            scorers[model.name] = scorer
    return scorers


def make_api(
    configuration: Configuration,
    engine: EnginePort,
    surroundings: Surroundings,
    scorers: Mapping[str, ScorerPort] = _NO_SCORERS,
) -> Api:
    """The API over a started engine and its scorers."""
    limits = configuration.limits
    privacy = configuration.privacy

    def profile(requested: Profile | None) -> Profile:
        return effective_profile(requested, default=privacy.default, floor=privacy.floor)

    served = {
        model.name: Served(
            model=engine.models[model.name],
            max_tokens=model.sampling.max_tokens,
            license=model.license,
            matryoshka=model.matryoshka,
            role=model.role,
            scorer=scorers.get(model.scorer or model.name),
        )
        for model in configuration.models
    }
    desk = Desk(
        engine=engine,
        book=ReceiptBook(surroundings.entropy),
        timeout_s=limits.request_timeout_s,
        profile=profile,
        entropy=surroundings.entropy,
        wall_s=surroundings.wall_s,
        gate=SearchGate(limits.max_tenant_searches),
    )
    return Api(
        desk,
        served,
        RequestLimits(
            max_candidates=limits.max_candidates,
            max_prompts=limits.max_prompts,
            max_inputs=limits.max_inputs,
            max_input_tokens=limits.max_input_tokens,
            max_steps=limits.max_steps,
            max_search_width=limits.max_search_width,
            max_search_tokens=limits.max_search_tokens,
            search_in_flight=limits.search_in_flight,
        ),
    )


def make_gateway(
    configuration: Configuration,
    engine: EnginePort,
    ring: KeyRing,
    desk: EvidenceDesk,
    surroundings: Surroundings,
    scorers: Mapping[str, ScorerPort] = _NO_SCORERS,
    *,
    release: KeyRelease | None = None,
) -> Gateway:
    """The gateway over a started engine, or over one whose models are sealed."""
    limits = configuration.limits
    privacy = configuration.privacy
    return Gateway(
        GatewaySettings(
            authorities=frozenset(configuration.authorities),
            max_request_bytes=limits.max_request_bytes,
            max_exchanges=limits.max_exchanges,
            receive_timeout_s=limits.receive_timeout_s,
            error_profile=effective_profile(None, default=privacy.default, floor=privacy.floor),
            waiting=tuple if release is None else release.waiting,
        ),
        ring=ring,
        desk=desk,
        application=make_api(configuration, engine, surroundings, scorers) if release is None else release,
        pacer=Pacer(monotonic=surroundings.monotonic),
        wall_s=surroundings.wall_s,
        entropy=surroundings.entropy,
    )


def make_tls_front(
    configuration: Configuration,
    gateway: Gateway,
    ring: KeyRing,
    desk: EvidenceDesk,
    surroundings: Surroundings,
) -> TlsFront:
    """What answers on the second channel: the gateway's own application."""
    limits = configuration.limits
    return TlsFront(
        TlsFrontSettings(
            max_request_bytes=limits.max_request_bytes,
            max_exchanges=limits.max_exchanges,
            receive_timeout_s=limits.receive_timeout_s,
        ),
        ring=ring,
        desk=desk,
        application=gateway.application,
        pacer=Pacer(monotonic=surroundings.monotonic),
        wall_s=surroundings.wall_s,
        entropy=surroundings.entropy,
    )


def make_desk(
    configuration: Configuration, attester: Attester, ring: KeyRing, surroundings: Surroundings
) -> EvidenceDesk:
    """What answers attestation requests."""
    limits = configuration.limits
    bucket = TokenBucket(
        per_minute=limits.quotes_per_minute, burst=limits.quote_burst, monotonic=surroundings.monotonic
    )
    return EvidenceDesk(attester, ring, bucket)


def make_release(
    configuration: Configuration, engine: Engine, surroundings: Surroundings
) -> KeyRelease | None:
    """What waits for the keys of sealed models; None when no model is sealed.

    Raises:
        SealedModelError: A sealed file is not the one that is configured, as far as that can be told without its key.
    """
    terms: dict[str, SealedTerms] = {}
    for model in configuration.models:
        if model.sealed is not None:
            model.sealed.check(sealed_header(str(model.path)), model.pin)
            terms[model.name] = model.sealed
    if not terms:
        return None

    async def load(keys: Mapping[str, ModelKey]) -> Api:
        if not engine.running:  # It runs when a scorer was refused the last time.
            await asyncio.to_thread(engine.start, keys)
        scorers = await load_scorers(configuration, engine)
        _note_loaded(engine)
        api = make_api(configuration, engine, surroundings, scorers)
        _settle_memory()
        note(Happening.READY)
        return api

    privacy = configuration.privacy
    return KeyRelease(terms, load, effective_profile(None, default=privacy.default, floor=privacy.floor))


def _note_loaded(engine: Engine) -> None:
    exact = sum(model.why_inexact is None for model in engine.models.values())
    note(Happening.MODELS_LOADED, models=len(engine.models), reproducible=exact)


def _settle_memory() -> None:
    """What was made so far stays; the collector need not walk through it again in the middle of a step."""
    gc.collect()
    gc.freeze()


async def _load(engine: Engine) -> None:
    """Load the models beside the event loop. Cancelling waits, because nothing can be freed while it loads."""
    loading = asyncio.create_task(asyncio.to_thread(engine.start))
    try:
        await asyncio.shield(loading)
    except asyncio.CancelledError:
        await asyncio.wait([loading])
        raise


async def boot(
    front: Front,
    configuration: Configuration,
    engine: Engine,
    attester: Attester,
    surroundings: Surroundings,
    *,
    release: KeyRelease | None = None,
) -> KeyRing:
    """Load the models, make the first keys, prove that the platform attests, and open the gateway.

    With ``release``, models are sealed: the gateway opens without them, for their keys.

    Raises:
        ConfigError: A model or a size is wrong.
        AttestationError: The platform gives no quote.
    """
    scorers: Mapping[str, ScorerPort] = _NO_SCORERS
    if release is None:
        await _load(engine)
        scorers = await load_scorers(configuration, engine)
        _note_loaded(engine)
    ring = make_ring(configuration, engine, surroundings)
    desk = make_desk(configuration, attester, ring, surroundings)
    await desk.unchallenged()
    front.gateway = make_gateway(configuration, engine, ring, desk, surroundings, scorers, release=release)
    if configuration.ra_tls_port is not None:
        front.tls = make_tls_front(configuration, front.gateway, ring, desk, surroundings)
    _settle_memory()
    note(Happening.READY if release is None else Happening.WAITING_FOR_KEYS)
    return ring


async def _live(ring: KeyRing, engine: Engine) -> None:
    """Rotate keys on time and watch the engine.

    Raises:
        EngineStopped: The loop died; the process has to end, so that its supervisor starts a new one.
    """
    epoch = ring.current()
    while not engine.failed:
        await asyncio.sleep(min(_CHECK_S, ring.seconds_to_change() + 0.001))
        current = ring.current()
        if current is not epoch:
            epoch = current
            note(Happening.EPOCH_BEGUN, epoch=current.keyset.extension.epoch)
    raise EngineStopped("the engine has failed")


def bind(configuration: Configuration, port: int | None = None) -> socket.socket:
    """A listening address, taken before anything is loaded, so that a port in use is found at once.

    Args:
        configuration: Names the address.
        port: Another port than that of the gateway.

    Raises:
        ConfigError: The port is in use.
    """
    host, port = configuration.listen_host, configuration.listen_port if port is None else port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only for sockets that name TCP as their protocol; with it on, small
    # chunks wait 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


async def serve(configuration: Configuration, attester: Attester, surroundings: Surroundings) -> None:
    """Run the enclave until SIGTERM.

    Raises:
        ConfigError: The configuration cannot be served.
        AttestationError: The platform gives no quote.
        EngineStopped: The engine died.
    """
    _silence_libraries()
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: note(Happening.INTERNAL_ERROR, error=context.get("exception"))
    )
    note(Happening.STARTING)
    front = Front()
    engine = make_engine(configuration)
    release = make_release(configuration, engine, surroundings)
    listener = bind(configuration)
    tls_port = configuration.ra_tls_port
    tls_listener = None if tls_port is None else bind(configuration, tls_port)
    server = uvicorn.Server(server_config(front, configuration))

    async def live() -> None:
        try:
            ring = await boot(front, configuration, engine, attester, surroundings, release=release)
            tasks = [asyncio.create_task(_live(ring, engine))]
            if front.tls is not None and tls_listener is not None:
                channel = TlsChannel(
                    configuration, front=front.tls, ring=ring, attester=attester, wall_s=surroundings.wall_s
                )
                tasks.append(asyncio.create_task(channel.serve(tls_listener)))
            await _first_to_end(tasks)
        finally:
            server.should_exit = True

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn stops on these signals, and afterwards raises them again for whoever handled them before. That must
    # not be the default handler, or the process would end before the engine has stopped and wiped its memory.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    living = asyncio.create_task(live())
    try:
        await server.serve(sockets=[listener])
    finally:
        note(Happening.SHUTTING_DOWN)
        front.gateway = None
        living.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([living])
        if release is not None:
            await release.settle()
        await asyncio.to_thread(engine.stop)
        note(Happening.STOPPED)
    if not living.cancelled() and (error := living.exception()) is not None:
        raise error


async def _first_to_end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait until one of them ends, end the others, and raise what it raised."""
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()
