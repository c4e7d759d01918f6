# SPDX-License-Identifier: Apache-2.0
"""Measures the engine on this machine for whoever tunes it: ``python -I -m adyton_enclave.probe``.

A process of its own that speaks JSON lines: one request on standard input, one answer on standard output. It steps
the very lane that serves, over made-up prompts, and holds no key and no caller's text. It is not measured, and
absent from production images: a machine is tuned before it serves, and the enclave that serves is told the result.

Requests, by their one member:

- ``load``: path, and content and weights as pinned, or neither: the file is taken for what it is then; more_paths
  are the other parts of a split model. Answers with types of weights and what the model can take.
- ``measure``: ``engine`` (members of an ``[engine]`` table), streams, prompt_tokens, answer_tokens, max_sequences.
  Answers with the seconds of each token of the prompt and of each step of decoding, and why this is inexact.
- ``identity``: name, sampling, n_ctx, ``engine``. Answers with the model's identity under these settings.
- ``quantize``: path, target, type. Writes another file; answers with its size.
"""

import asyncio
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np
from llama_cpp import llama_cpp as _bindings

from adyton_enclave.engine.choice import ChoiceGroup
from adyton_enclave.engine.doorbell import Doorbell
from adyton_enclave.engine.generation import Mailbox
from adyton_enclave.engine.invariance import why_inexact
from adyton_enclave.engine.lane import Lane
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.loaded_model import identity_of
from adyton_enclave.engine.request import GenerationRequest, SamplingParams, Usage
from adyton_enclave.engine.settings import EngineConfig, ModelSpec
from adyton_enclave.engine.thread_pool import ThreadPool
from adyton_enclave.weights.model_file import ModelFile
from adyton_protocol.digests import as_digest
from adyton_protocol.errors import AdytonError, ConfigError
from adyton_protocol.gguf_canonical import read_model
from adyton_protocol.model_identity import ModelPin, model_content
from adyton_protocol.random_access import BytesAccess
from adyton_protocol.weights_tree import hash_weights

_lib: Any = _bindings
_SLACK_CELLS: Final = 64
_LEAST_PROMPT_TOKENS: Final = 2
_KEY: Final = bytes(32)
_SETTINGS: Final = frozenset(field.name for field in fields(EngineConfig))

Answer = dict[str, object]


def _integer(request: Mapping[str, object], name: str) -> int:
    value = request.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a positive number")
    return value


def _text(request: Mapping[str, object], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} must be a text")
    return value


def _texts(request: Mapping[str, object], name: str) -> list[str]:
    values = request.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{name} must be a list of texts")
    return values


def _config(request: Mapping[str, object], **more: int) -> EngineConfig:
    settings = request.get("engine", {})
    if not isinstance(settings, dict) or not _SETTINGS.issuperset(settings):
        raise ConfigError("engine must be a table of known settings")
    return EngineConfig(**{**settings, **more})


class Prober:
    """One loaded model, and contexts over it that come and go."""

    def __init__(self) -> None:
        """Load nothing yet."""
        self._model: LlamaModel | None = None
        self._pin: ModelPin | None = None

    def answer(self, request: Mapping[str, object]) -> Answer:
        """Do what one request asks for.

        Raises:
            AdytonError: It cannot be done.
        """
        handlers = {
            "load": self._load,
            "measure": self._measure,
            "identity": self._identity,
            "quantize": self._quantize,
        }
        for name, handler in handlers.items():
            body = request.get(name)
            if isinstance(body, dict):
                return handler(body)
        raise ConfigError(f"a request has one of the members {', '.join(handlers)}")

    def close(self) -> None:
        """Free the model. Idempotent."""
        if self._model is not None:
            self._model.close()
            self._model = None

    def _load(self, request: Mapping[str, object]) -> Answer:
        self.close()
        path = _text(request, "path")
        if "content" in request:
            pin = ModelPin(
                content=as_digest(_text(request, "content")), weights=as_digest(_text(request, "weights"))
            )
        else:
            pin = _pin_of(path)
        with ModelFile.open([path, *_texts(request, "more_paths")], pin) as file:
            model = self._model = LlamaModel(file, pin)
        self._pin = pin
        return {
            "architecture": model.weights.architecture,
            "weights": sorted(model.weights.matrix_types),
            "n_ctx_train": model.n_ctx_train,
            "n_vocab": model.n_vocab,
        }

    def _identity(self, request: Mapping[str, object]) -> Answer:
        sampling = request.get("sampling", {})
        if not isinstance(sampling, dict):
            raise ConfigError("sampling must be a table")
        known = {name: value for name, value in sampling.items() if name != "max_tokens"}
        if self._pin is None:
            raise ConfigError("no model is loaded")
        spec = ModelSpec(
            name=_text(request, "name"),
            path="",
            pin=self._pin,
            n_ctx=_integer(request, "n_ctx"),
            sampling=SamplingParams(**known),
        )
        return {"identity": identity_of(spec, _config(request))}

    @staticmethod
    def _quantize(request: Mapping[str, object]) -> Answer:
        kind = _text(request, "type")
        ftype = getattr(_lib, f"LLAMA_FTYPE_MOSTLY_{kind}", None)
        if ftype is None:
            raise ConfigError(f"llama.cpp knows no quantisation called {kind}")
        params = _lib.llama_model_quantize_default_params()
        params.ftype = ftype
        params.allow_requantize = True
        target = Path(_text(request, "target"))
        if _lib.llama_model_quantize(
            _text(request, "path").encode(), str(target).encode(), ctypes.byref(params)
        ):
            raise ConfigError(f"llama.cpp could not quantise the model to {kind}")
        return {"size_bytes": target.stat().st_size}

    def _measure(self, request: Mapping[str, object]) -> Answer:
        if self._model is None:
            raise ConfigError("no model is loaded")
        model, streams = self._model, _integer(request, "streams")
        prompt_tokens, answer_tokens = _integer(request, "prompt_tokens"), _integer(request, "answer_tokens")
        if prompt_tokens < _LEAST_PROMPT_TOKENS:
            raise ConfigError("prompt_tokens must be at least 2")
        cells = prompt_tokens + streams * (answer_tokens + 1) + _SLACK_CELLS
        config = _config(
            request, n_ctx_total=cells, max_sequences=_integer(request, "max_sequences"), cache_cells=0
        )
        wanted = GenerationRequest(
            model="probe",
            prompt_token_ids=_made_up(prompt_tokens, model),
            max_tokens=answer_tokens + 1,
            n=streams,
            key=_KEY,
        )
        pool = ThreadPool(config.compute_threads)
        try:
            lane = Lane(model, config)
            try:
                pool.attach(lane.context)
                prefill_s, step_s = _run(lane, wanted)
            finally:
                lane.close()
        finally:
            pool.close()
        return {
            "prefill_token_s": prefill_s,
            "step_s": step_s,
            "why_inexact": why_inexact(model.weights, config),
            "threads": config.compute_threads,
        }


def _pin_of(path: str) -> ModelPin:
    """What a file holds, to be loaded as just that: nobody trusts a measurement of speed."""
    try:
        source = BytesAccess(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"the model file cannot be read: {error.strerror}") from error
    model = read_model([source])
    return model_content(model, hash_weights(model, [source]).root()).pin


def _made_up(count: int, model: LlamaModel) -> tuple[int, ...]:
    """Tokens without a meaning, the same each time."""
    drawn = np.random.default_rng(0).integers(0, model.n_vocab, 2 * count + len(model.eog))
    return tuple([int(token) for token in drawn if int(token) not in model.eog][:count])


def _run(lane: Lane, request: GenerationRequest) -> tuple[float, float]:
    """Compute a request; seconds for each token of the prompt, median seconds of a step that decodes all choices."""
    loop = asyncio.new_event_loop()
    try:
        usage = Usage(prompt_tokens=len(request.prompt_token_ids), completion_tokens=0)
        group = ChoiceGroup(request, Mailbox(Doorbell(loop), usage), None)
        lane.add(group)
        started_s = time.perf_counter()
        while lane.busy and group.n_completion < request.n:
            lane.step()
        # The choices compute the last token of the prompt each on its own, in a step of their own.
        prefill_s = time.perf_counter() - started_s
        steps: list[float] = []
        while lane.busy:
            before, started_s = group.n_completion, time.perf_counter()
            lane.step()
            if group.n_completion - before == request.n:
                steps.append(time.perf_counter() - started_s)
            elif steps:
                break
    finally:
        loop.close()
    if not steps:
        raise ConfigError("the model ends its answers too early to be measured")
    step_s = statistics.median(steps)
    return max(prefill_s - step_s, 1e-9) / (len(request.prompt_token_ids) - 1), step_s


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer line by line until the requests end."""
    prober = Prober()
    try:
        for line in requests:
            try:
                request = json.loads(line)
                answer = prober.answer(request if isinstance(request, dict) else {})
            except (AdytonError, ValueError, TypeError) as error:
                answer = {"error": str(error)}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        prober.close()


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
