# SPDX-License-Identifier: Apache-2.0
"""The decoding engine: continuous batching over llama.cpp's low-level interface.

``Engine`` is the way in. Everything else that callers need is a plain value.
"""

from adyton_enclave.engine.embedder import EmbeddingRequest, Embeddings
from adyton_enclave.engine.engine import Engine
from adyton_enclave.engine.evaluation import Evaluation, EvaluationRequest, Question
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
from adyton_enclave.engine.tree import Branch, Tree
from adyton_enclave.engine.tree_group import Extension

__all__ = [
    "Branch",
    "Constraint",
    "EmbeddingRequest",
    "Embeddings",
    "Engine",
    "EngineConfig",
    "Evaluation",
    "EvaluationRequest",
    "Event",
    "Extension",
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
    "Question",
    "SamplingParams",
    "TextDelta",
    "TokenLogprob",
    "TokenMask",
    "TopLogprob",
    "Tree",
    "Usage",
    "sampling_key",
]
