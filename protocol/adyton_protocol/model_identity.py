# SPDX-License-Identifier: Apache-2.0
"""The identity of a model: one digest over what makes it answer the way it does, apart from measured code.

Two steps. The *content* is what the model's files hold, however they are packed (plain, split, sealed)::

    content  = SHA-256(JCS{version, weights, tokenizer, chat_template, hyperparameters, quantisation})
    identity = SHA-256(JCS{version, content, n_ctx, sampling, kv_type_k, kv_type_v, flash_attention, scorer})

``weights`` is the root of the tree over the tensors (``weights_tree``). The others are SHA-256 over the kept keys of
the header (``gguf_canonical``), each in one of the groups, and over the types of all tensors. So every part can be
compared by itself, and all but the weights are known before a tensor is read.

A configuration pins content and weights. SECURITY: with both, the content is checked when only the header is known;
nothing of a file reaches llama.cpp before that, and no answer is given before the weights were those, too.

The enclave computes the identity for what it loaded and puts it into the attested keyset; whoever writes a policy
computes it for what he wants to accept. Both use this module, and it knows what a configuration means that leaves
something out: the enclave takes its sampling defaults from here, and a test holds the engine's cache types to these.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from adyton_protocol.digests import Digest, as_digest, jcs, sha256_hex
from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf import Value
from adyton_protocol.gguf_canonical import GgufModel

VERSION: Final = 3
CONTENT_VERSION: Final = 2

TOKENIZER_PREFIX: Final = "tokenizer."
CHAT_TEMPLATE_PREFIX: Final = "tokenizer.chat_template"

_KEYS_DOMAIN: Final = b"adyton model keys v1\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """Sampling of a request that says nothing else; the same defaults as llama.cpp's own tools have."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheProfile:
    """What of the KV cache decides the bits of an answer; the default is batch-invariant."""

    kv_type_k: str = "f16"
    kv_type_v: str = "q8_0"
    flash_attention: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerParts:
    """What makes a scorer out of a model.

    Attributes:
        adapter: SHA-256 of the adapter file.
        head: SHA-256 of the head's file, None where the model itself judges.
    """

    adapter: Digest
    head: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPin:
    """What a configuration expects of a model's files.

    Attributes:
        content: Digest of everything in them.
        weights: Root of the tree over their tensors, a part of the content.
    """

    content: Digest
    weights: Digest

    def __post_init__(self) -> None:
        """Refuse what is no digest (``LocalProtocolError``)."""
        as_digest(self.content)
        as_digest(self.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContent:
    """The parts of what a model's files hold.

    Attributes:
        weights: Root of the tree over the tensors: names, types, shapes and data.
        tokenizer: Of all keys that begin with ``tokenizer.``, but for the chat templates.
        chat_template: Of the chat templates; of no key at all where there is none.
        hyperparameters: Of all other keys that were kept: architecture, dimensions, what nobody knows.
        quantisation: Of the types of all tensors, in the order of their names.
    """

    weights: Digest
    tokenizer: Digest
    chat_template: Digest
    hyperparameters: Digest
    quantisation: Digest

    @property
    def digest(self) -> Digest:
        """One digest over all parts."""
        return sha256_hex(jcs({"version": CONTENT_VERSION, **asdict(self)}))

    @property
    def pin(self) -> ModelPin:
        """What a configuration has to say to accept exactly this."""
        return ModelPin(content=self.digest, weights=self.weights)


def model_content(model: GgufModel, weights: Digest) -> ModelContent:
    """The content of a model whose header was parsed.

    Args:
        model: The merged header.
        weights: Root of its tensors: what was computed, or what a configuration expects of it.
    """
    types = {name: tensor.type.name for name, tensor in sorted(model.tensors.items())}
    return ModelContent(
        weights=weights,
        tokenizer=_keys_digest(model.metadata, _is_tokenizer),
        chat_template=_keys_digest(model.metadata, _is_template),
        hyperparameters=_keys_digest(model.metadata, lambda key: not key.startswith(TOKENIZER_PREFIX)),
        quantisation=sha256_hex(jcs(types)),
    )


def check_header(model: GgufModel, pin: ModelPin) -> ModelContent:
    """Hold a header (attacker-controlled) to what is pinned, before anything else looks at it.

    Returns:
        The content that the model has if its weights are those that are pinned.

    Raises:
        ModelFileError: The header is of another model, or the pinned weights are.
    """
    content = model_content(model, pin.weights)
    if not hmac.compare_digest(content.digest, pin.content):
        raise ModelFileError(
            f"the model file's content is {content.digest} at best, which is not the one configured",
            check="content",
        )
    return content


def check_weights(weights: Digest, pin: ModelPin) -> None:
    """Hold the weights that were loaded to what is pinned.

    Raises:
        ModelFileError: They are others.
    """
    if not hmac.compare_digest(weights, pin.weights):
        raise ModelFileError(
            f"the model file's weights are {weights}, which are not those configured", check="weights"
        )


def model_identity(
    *,
    content: Digest,
    n_ctx: int,
    sampling: SamplingDefaults,
    cache: CacheProfile,
    scorer: ScorerParts | None = None,
) -> Digest:
    """Return the identity of a model.

    Args:
        content: Digest of what its files hold.
        n_ctx: Most tokens of prompt and answer together.
        sampling: Defaults of requests.
        cache: Types of the KV cache.
        scorer: What makes a scorer of it; None for a model that is none.

    Raises:
        LocalProtocolError: A digest is not of its form.
    """
    facts = identity_facts(content=content, n_ctx=n_ctx, sampling=sampling, cache=cache, scorer=scorer)
    return sha256_hex(jcs(facts))


def identity_facts(
    *,
    content: Digest,
    n_ctx: int,
    sampling: SamplingDefaults,
    cache: CacheProfile,
    scorer: ScorerParts | None = None,
) -> dict[str, object]:
    """The members of the JSON object whose digest is the identity; see :func:`model_identity`."""
    return {
        "version": VERSION,
        "content": as_digest(content),
        "n_ctx": n_ctx,
        # As floats, so that 1 and 1.0 in a configuration are one identity.
        "sampling": {
            "temperature": float(sampling.temperature),
            "top_p": float(sampling.top_p),
            "top_k": sampling.top_k,
            "min_p": float(sampling.min_p),
        },
        **asdict(cache),
        "scorer": None
        if scorer is None
        else {
            "adapter": as_digest(scorer.adapter),
            "head": None if scorer.head is None else as_digest(scorer.head),
        },
    }


def _is_template(key: str) -> bool:
    return key.startswith(CHAT_TEMPLATE_PREFIX)


def _is_tokenizer(key: str) -> bool:
    return key.startswith(TOKENIZER_PREFIX) and not _is_template(key)


def _keys_digest(metadata: Mapping[str, Value], chosen: Callable[[str], bool]) -> Digest:
    """SHA-256 over the chosen keys as they stand in the canonical header: each line says how long it is."""
    state = hashlib.sha256(_KEYS_DOMAIN)
    for key, value in metadata.items():
        if chosen(key):
            state.update(len(key).to_bytes(8, "little") + key.encode("ascii"))
            state.update(value.encode())
    return Digest("sha256:" + state.hexdigest())
