# SPDX-License-Identifier: Apache-2.0
"""One pool of compute threads for all models of an engine.

Left alone, ggml starts and joins its threads for every graph, that is, for every step; inside an enclave that is
dear, and two models would each have their own. The loop computes one model at a time, so they share.
"""

import ctypes
from typing import Any, Final

from llama_cpp import llama_cpp as _bindings

from adyton_enclave.engine.embedding_context import EmbeddingContext
from adyton_enclave.engine.llama import LlamaContext
from adyton_protocol.errors import ConfigError

MAX_THREADS: Final = 512
"""GGML_MAX_N_THREADS."""

# llama-cpp-python binds no thread pools. Looking them up through libllama's own handle finds the very copy of
# ggml that it uses; opening libggml by name could load a second one.
_library: Any = _bindings


class _Params(ctypes.Structure):
    """``struct ggml_threadpool_params``."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * MAX_THREADS),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class ThreadPool:
    """Compute threads that live as long as the engine. Must outlive every context that it is attached to."""

    def __init__(self, n_threads: int) -> None:
        """Start ``n_threads`` less one; the thread that computes is the first.

        Raises:
            ConfigError: Too many, or the system refuses.
        """
        if not 1 <= n_threads <= MAX_THREADS:
            raise ConfigError(f"engine.threads must lie between 1 and {MAX_THREADS}")
        self._library: Any = _library._lib  # noqa: SLF001  # its handle, see above
        self._library.ggml_threadpool_params_init.argtypes = [ctypes.POINTER(_Params), ctypes.c_int]
        self._library.ggml_threadpool_params_init.restype = None
        self._library.ggml_threadpool_new.argtypes = [ctypes.POINTER(_Params)]
        self._library.ggml_threadpool_new.restype = ctypes.c_void_p
        self._library.ggml_threadpool_free.argtypes = [ctypes.c_void_p]
        self._library.ggml_threadpool_free.restype = None
        self._library.llama_attach_threadpool.argtypes = [ctypes.c_void_p] * 3
        self._library.llama_attach_threadpool.restype = None
        params = _Params()
        self._library.ggml_threadpool_params_init(ctypes.byref(params), n_threads)
        if params.n_threads != n_threads:
            raise ConfigError("ggml lays out its thread pool parameters differently from what we know")
        self._pool: int | None = self._library.ggml_threadpool_new(ctypes.byref(params))
        if not self._pool:
            raise ConfigError("the compute threads could not be started")

    def attach(self, context: LlamaContext | EmbeddingContext) -> None:
        """Let a context compute with these threads."""
        self._library.llama_attach_threadpool(context.handle, self._pool, self._pool)

    def close(self) -> None:
        """Join the threads. Idempotent; every context must be closed."""
        if self._pool:
            self._library.ggml_threadpool_free(self._pool)
            self._pool = None
