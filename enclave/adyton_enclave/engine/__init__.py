# SPDX-License-Identifier: Apache-2.0
"""The decoding engine: continuous batching over llama.cpp's low-level interface.

``Engine`` is the way in. Everything else that callers need is a plain value.
"""

from adyton_enclave.engine.embedder import EmbeddingRequest, Embeddings
from adyton_enclave.engine.engine import Engine
from adyton_enclave.engine.generation import Generation
from adyton_enclave.engine.lane import LaneStatus
from adyton_enclave.engine.loaded_model import LoadedModel
from adyton_enclave.engine.noise import sampling_key
from adyton_enclave.engine.request import (
    Constraint,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Matcher,
    Priority,
    SamplingParams,
    TextDelta,
    TokenLogprob,
    TokenMask,
    TopLogprob,
    Usage,
)
from adyton_enclave.engine.settings import EngineConfig, KvType, ModelSpec

__all__ = [
    "Constraint",
    "EmbeddingRequest",
    "Embeddings",
    "Engine",
    "EngineConfig",
    "Event",
    "FinishReason",
    "Finished",
    "Generation",
    "GenerationRequest",
    "KvType",
    "LaneStatus",
    "LoadedModel",
    "Matcher",
    "ModelSpec",
    "Priority",
    "SamplingParams",
    "TextDelta",
    "TokenLogprob",
    "TokenMask",
    "TopLogprob",
    "Usage",
    "sampling_key",
]
