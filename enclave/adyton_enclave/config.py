# SPDX-License-Identifier: Apache-2.0
"""The one measured configuration file of the enclave.

``enclave.toml`` in the working directory is the only thing that configures an enclave: there are no arguments and
no environment variables, because the untrusted host controls both and neither is measured. Every key is known or
the file is refused; the SHA-256 of the exact bytes goes into the attested keyset, so that a client can see which
configuration answers it.
"""

import hashlib
import ipaddress
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from adyton_enclave.engine import EngineConfig, KvType
from adyton_enclave.engine.settings import MAX_SEQUENCES
from adyton_enclave.privacy import Profile
from adyton_enclave.scoring.files import ScorerFiles
from adyton_enclave.toml_table import Table
from adyton_enclave.weights.terms import SealedTerms
from adyton_protocol.digests import DIGEST_PATTERN, Digest
from adyton_protocol.errors import ConfigError
from adyton_protocol.media import MAX_REQUEST_BYTES
from adyton_protocol.model_identity import ModelPin, SamplingDefaults

CONFIG_NAME: Final = "enclave.toml"
CONFIG_VERSION: Final = 1
MAX_CONFIG_BYTES: Final = 256 * 1024

DEFAULT_PORT: Final = 8471
DEFAULT_EPOCH_S: Final = 900
DEFAULT_OVERLAP_S: Final = 300
DEFAULT_N_CTX_TOTAL: Final = 16_384
DEFAULT_AUTHORITIES: Final = ("adyton.invalid", "ohttp.invalid")
"""``adyton.invalid`` is what our clients send, ``ohttp.invalid`` what gateways expect by convention."""

_KEY_ID: Final = re.compile(r"[0-9a-f]{64}")
_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9.\-\[\]:]{1,255}")

AttesterName = Literal["gramine", "simulated"]
ModelRole = Literal["generator", "embedding", "scorer"]
ROLES: Final[tuple[ModelRole, ...]] = get_args(ModelRole)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacySettings:
    """Which privacy profile a request gets: ``default`` without a wish, and never less than ``floor``."""

    floor: Profile = Profile.OFF
    default: Profile = Profile.SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one enclave lends to its callers at most; sizes in bytes, times in seconds."""

    max_request_bytes: int = MAX_REQUEST_BYTES
    max_connections: int = 256
    max_exchanges: int = 128
    max_queue: int = 128
    max_sequences: int = 32
    max_candidates: int = 16
    max_prompts: int = 16
    max_inputs: int = 2048
    max_input_tokens: int = 300_000
    max_steps: int = 256
    max_search_width: int = 64
    max_search_tokens: int = 65_536
    search_in_flight: int = 32
    max_tenant_searches: int = 8
    receive_timeout_s: int = 30
    request_timeout_s: int = 600
    keep_alive_s: int = 75
    shutdown_s: int = 10
    quotes_per_minute: int = 1200
    quote_burst: int = 100
    replay_entries: int = 65_536


_SAMPLING: Final = SamplingDefaults()


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """What a request gets when it does not say; part of the model's identity."""

    temperature: float = _SAMPLING.temperature
    top_p: float = _SAMPLING.top_p
    top_k: int = _SAMPLING.top_k
    min_p: float = _SAMPLING.min_p
    max_tokens: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """One model to load.

    Attributes:
        pin: Checked against the very bytes that are loaded.
        more_paths: The other parts of a split model, in their order; ``path`` is the first.
        sealed: What is demanded of a sealed file; None for a model in the clear.
        role: A generator answers, and embeds as well if ``embeddings`` says so; an embedding model only embeds, a
            scorer only judges.
        matryoshka: The model was trained so that the head of a vector is a vector; callers may ask for fewer
            dimensions.
        scorer: Of a generator, the name of the model that judges its answers; empty without one.
        scorer_files: Of a scorer, its adapter and head; None for other roles.
    """

    name: str
    path: Path
    pin: ModelPin
    role: ModelRole
    embeddings: bool
    matryoshka: bool
    n_ctx: int
    license: str
    sampling: SamplingSettings
    more_paths: tuple[Path, ...] = ()
    sealed: SealedTerms | None = None
    scorer: str = ""
    scorer_files: ScorerFiles | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A parsed ``enclave.toml``.

    Attributes:
        digest: SHA-256 of the exact bytes of the file, bound by the quote through the keyset.
        epoch_s: Life of a key epoch in seconds, before the next one replaces it.
        overlap_s: Seconds for which a replaced epoch still opens requests.
        authorities: Values of ``:authority`` that an inner request may carry. They decide nothing; a request
            that names another service was sealed for somebody else and is refused.
        ra_tls_port: Loopback port of the second channel, TLS that ends in the enclave; None leaves it closed.
    """

    digest: Digest
    listen_host: str
    listen_port: int
    attester: AttesterName
    simulation_platform: Path | None
    epoch_s: int
    overlap_s: int
    authorities: tuple[str, ...]
    models: tuple[ModelSettings, ...]
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    limits: Limits = field(default_factory=Limits)
    engine: EngineConfig = field(default_factory=EngineConfig)
    ra_tls_port: int | None = None


def parse_configuration(data: bytes) -> Configuration:
    """Parse the bytes of ``enclave.toml``.

    Args:
        data: The exact bytes, which are hashed as they are.

    Raises:
        ConfigError: A key is unknown, missing, of the wrong type or out of range, or two contradict each other.
    """
    try:
        root = Table(CONFIG_NAME, tomllib.loads(data.decode("utf-8")))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{CONFIG_NAME}: not valid TOML in UTF-8") from error
    root.whole("version", low=CONFIG_VERSION, high=CONFIG_VERSION)
    attester = _attester(root)
    platform = _simulation_platform(root, attester)
    epoch_s = root.whole("epoch_seconds", DEFAULT_EPOCH_S, high=24 * 3600)
    limits = _limits(root.table("limits"))
    configuration = Configuration(
        digest=Digest("sha256:" + hashlib.sha256(data).hexdigest()),
        listen_host=_listen_host(root),
        listen_port=root.whole("listen_port", DEFAULT_PORT, low=0, high=65_535),
        attester=attester,
        simulation_platform=platform,
        epoch_s=epoch_s,
        overlap_s=root.whole("overlap_seconds", min(DEFAULT_OVERLAP_S, epoch_s), high=epoch_s),
        authorities=_authorities(root),
        privacy=_privacy(root.table("privacy")),
        limits=limits,
        engine=_engine(root.table("engine"), limits),
        models=_models(root),
        ra_tls_port=root.whole("ra_tls_port", low=0, high=65_535) if root.has("ra_tls_port") else None,
    )
    root.finish()
    return configuration


def load_configuration(directory: Path) -> Configuration:
    """Read and parse ``enclave.toml`` in ``directory``.

    Raises:
        ConfigError: There is no such file, it is too large, or it does not parse.
    """
    try:
        with (directory / CONFIG_NAME).open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{CONFIG_NAME} cannot be read in the working directory: {error.strerror}"
        ) from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{CONFIG_NAME} is larger than {MAX_CONFIG_BYTES} bytes")
    return parse_configuration(data)


def _attester(root: Table) -> AttesterName:
    match root.text("attester"):
        case "gramine":
            return "gramine"
        case "simulated":
            return "simulated"
        case _:
            raise root.fail("attester", 'must be "gramine" or "simulated"')


def _simulation_platform(root: Table, attester: AttesterName) -> Path | None:
    if attester == "simulated":
        return Path(root.text("simulation_platform"))
    if root.has("simulation_platform"):
        raise root.fail("simulation_platform", 'is only allowed with attester = "simulated"')
    return None


def _listen_host(root: Table) -> str:
    """SECURITY: loopback only; the one peer of an enclave is the host process beside it."""
    host = root.text("listen_host", "127.0.0.1")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise root.fail("listen_host", "must be an IP address") from error
    if not loopback:
        raise root.fail("listen_host", "must be a loopback address")
    return host


def _authorities(root: Table) -> tuple[str, ...]:
    authorities = root.texts("authorities", DEFAULT_AUTHORITIES)
    if not all(_AUTHORITY.fullmatch(authority) for authority in authorities):
        raise root.fail("authorities", "must hold host names, optionally with a port")
    return tuple(authority.lower() for authority in authorities)


def _profile(table: Table, key: str, default: Profile) -> Profile:
    try:
        return Profile(table.text(key, default.value))
    except ValueError as error:
        raise table.fail(key, 'must be "off", "size" or "cadence"') from error


def _privacy(table: Table) -> PrivacySettings:
    settings = PrivacySettings(
        floor=_profile(table, "floor", Profile.OFF), default=_profile(table, "default", Profile.SIZE)
    )
    table.finish()
    return settings


def _limits(table: Table) -> Limits:
    standard = Limits()
    limits = Limits(
        max_request_bytes=table.whole(
            "max_request_bytes", standard.max_request_bytes, low=4096, high=MAX_REQUEST_BYTES
        ),
        max_connections=table.whole("max_connections", standard.max_connections, high=65_536),
        max_exchanges=table.whole("max_exchanges", standard.max_exchanges, high=65_536),
        max_queue=table.whole("max_queue", standard.max_queue, high=65_536),
        max_sequences=table.whole("max_sequences", standard.max_sequences, high=MAX_SEQUENCES),
        max_candidates=table.whole("max_candidates", standard.max_candidates, high=1024),
        max_prompts=table.whole("max_prompts", standard.max_prompts, high=1024),
        max_inputs=table.whole("max_inputs", standard.max_inputs, high=65_536),
        max_input_tokens=table.whole("max_input_tokens", standard.max_input_tokens, high=1 << 24),
        max_steps=table.whole("max_steps", standard.max_steps, high=4096),
        max_search_width=table.whole("max_search_width", standard.max_search_width, high=1024),
        max_search_tokens=table.whole("max_search_tokens", standard.max_search_tokens, high=1 << 30),
        search_in_flight=table.whole("search_in_flight", standard.search_in_flight, high=1024),
        max_tenant_searches=table.whole("max_tenant_searches", standard.max_tenant_searches, high=65_536),
        receive_timeout_s=table.whole("receive_timeout_s", standard.receive_timeout_s, high=3600),
        request_timeout_s=table.whole("request_timeout_s", standard.request_timeout_s, high=24 * 3600),
        keep_alive_s=table.whole("keep_alive_s", standard.keep_alive_s, high=3600),
        shutdown_s=table.whole("shutdown_s", standard.shutdown_s, high=3600),
        quotes_per_minute=table.whole("quotes_per_minute", standard.quotes_per_minute, high=60_000),
        quote_burst=table.whole("quote_burst", standard.quote_burst, high=10_000),
        replay_entries=table.whole("replay_entries", standard.replay_entries, low=16, high=1 << 24),
    )
    table.finish()
    return limits


def _engine(table: Table, limits: Limits) -> EngineConfig:
    standard = EngineConfig()
    settings = EngineConfig(
        threads=table.whole("threads", standard.threads, low=0, high=1024),
        n_ctx_total=table.whole("n_ctx_total", DEFAULT_N_CTX_TOTAL, low=32, high=1 << 26),
        n_batch=table.whole("n_batch", standard.n_batch, high=1 << 16),
        n_ubatch=table.whole("n_ubatch", standard.n_ubatch, high=1 << 16),
        prefill_tokens=table.whole("prefill_tokens", standard.prefill_tokens, low=0, high=1 << 16),
        cache_cells=table.whole("cache_cells", low=0, high=1 << 26) if table.has("cache_cells") else None,
        max_sequences=limits.max_sequences,
        max_queue=limits.max_queue,
        kv_type_k=_kv_type(table, "kv_type_k", standard.kv_type_k),
        kv_type_v=_kv_type(table, "kv_type_v", standard.kv_type_v),
        flash_attention=table.flag("flash_attention", default=standard.flash_attention),
        batch_invariant=table.flag("batch_invariant", default=standard.batch_invariant),
        require_reproducible=table.flag("require_reproducible", default=standard.require_reproducible),
    )
    table.finish()
    return settings


def _kv_type(table: Table, key: str, default: KvType) -> KvType:
    name = table.text(key, default)
    for known in get_args(KvType):
        if name == known:
            found: KvType = known
            return found
    raise table.fail(key, f"must be one of {', '.join(get_args(KvType))}")


def _models(root: Table) -> tuple[ModelSettings, ...]:
    models = tuple(_model(table) for table in root.tables("model"))
    names = [model.name for model in models]
    if len(set(names)) != len(names):
        raise root.fail("model", "must not give the same name twice")
    scorers = {model.name for model in models if model.role == "scorer"}
    if any(model.scorer and model.scorer not in scorers for model in models):
        raise root.fail("model", "names a scorer that is not given as a model of that role")
    return models


def _model(table: Table) -> ModelSettings:
    name = table.text("name")
    if not _MODEL_NAME.fullmatch(name):
        raise table.fail("name", "must be letters, digits and . _ : / -, at most 128 of them")
    pin = ModelPin(content=_digest(table, "content"), weights=_digest(table, "weights"))
    role = table.choice("role", ROLES, "generator")
    embeddings = table.flag("embeddings", default=role == "embedding")
    if role == "embedding" and not embeddings:
        raise table.fail("embeddings", 'cannot be false with role = "embedding"')
    if role == "scorer" and embeddings:
        raise table.fail("embeddings", 'cannot be true with role = "scorer"')
    matryoshka = table.flag("matryoshka", default=False)
    if matryoshka and not embeddings:
        raise table.fail("matryoshka", "requires embeddings = true")
    sealed = _sealed(table.table("sealed")) if table.has("sealed") else None
    path, *more_paths = _paths(table)
    if sealed is not None and more_paths:
        raise table.fail("paths", "must name one file: the parts of a sealed model are in it")
    model = ModelSettings(
        name=name,
        path=path,
        more_paths=tuple(more_paths),
        sealed=sealed,
        pin=pin,
        role=role,
        embeddings=embeddings,
        matryoshka=matryoshka,
        n_ctx=table.whole("n_ctx", low=32, high=1 << 24),
        license=table.text("license", "unspecified"),
        sampling=_sampling(table.table("sampling")),
        scorer=table.text("scorer") if role == "generator" and table.has("scorer") else "",
        scorer_files=_scorer_files(table) if role == "scorer" else None,
    )
    table.finish()
    return model


def _paths(table: Table) -> list[Path]:
    """One file as ``path``, or the parts of a split model as ``paths``."""
    if not table.has("paths"):
        return [Path(table.text("path"))]
    if table.has("path"):
        raise table.fail("paths", "and path exclude one another")
    return [Path(name) for name in table.texts("paths", ())]


def _sealed(table: Table) -> SealedTerms:
    key_id = table.text("key_id")
    if not _KEY_ID.fullmatch(key_id):
        raise table.fail("key_id", "must be 64 lower-case hexadecimal digits")
    terms = SealedTerms(
        key_id=bytes.fromhex(key_id), min_version=table.whole("min_version", 0, low=0, high=(1 << 63) - 1)
    )
    table.finish()
    return terms


def _scorer_files(table: Table) -> ScorerFiles:
    head = Path(table.text("head")) if table.has("head") else None
    return ScorerFiles(
        adapter=Path(table.text("adapter")),
        adapter_digest=_digest(table, "adapter_digest"),
        head=head,
        head_digest=None if head is None else _digest(table, "head_digest"),
    )


def _digest(table: Table, key: str) -> Digest:
    text = table.text(key)
    if not DIGEST_PATTERN.fullmatch(text):
        raise table.fail(key, "must be sha256: and 64 lower-case hexadecimal digits")
    return Digest(text)


def _sampling(table: Table) -> SamplingSettings:
    standard = SamplingSettings()
    settings = SamplingSettings(
        temperature=table.real("temperature", standard.temperature, low=0.0, high=2.0),
        top_p=table.real("top_p", standard.top_p, low=1e-6, high=1.0),
        top_k=table.whole("top_k", standard.top_k, low=0, high=1 << 20),
        min_p=table.real("min_p", standard.min_p, low=0.0, high=1.0),
        max_tokens=table.whole("max_tokens", standard.max_tokens),
    )
    table.finish()
    return settings
