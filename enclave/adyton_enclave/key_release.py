# SPDX-License-Identifier: Apache-2.0
"""An enclave whose models are sealed: it attests and waits until their keys have been released to it.

::

    WAITING ──the last key, and all models load──> SERVING
       └──a wrong key, a file that is not the right one: an error for the sender, and still WAITING

``PUT /v1/adyton/models/{name}/key`` inside a sealed request, 32 bytes as ``application/octet-stream``. Whoever sends a
key has appraised this enclave and its keyset, which names every model with its identity, so the key goes to the very
code, configuration and model that it is meant for. Everything else is answered with ``model-key-missing``.

SECURITY: a key reaches the enclave sealed and leaves it nowhere. It is overwritten as soon as the models are loaded or
have failed to, so that a failure asks for all keys again, and a restarted enclave begins with none.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from adyton_enclave.api.errors import InternalError, NoSuchRoute, WrongMethod, error_headers
from adyton_enclave.exchange import Application, ExchangeFacts, InnerRequest, InnerResponse
from adyton_enclave.log import Happening, note
from adyton_enclave.privacy import Profile
from adyton_enclave.weights.terms import SealedTerms
from adyton_protocol.errors import (
    AdytonError,
    ConfigError,
    EngineError,
    InvalidRequest,
    ModelKeyMissing,
    WrongModelKey,
)
from adyton_protocol.sealed_model import KEY_BYTES, ModelKey

KEY_PREFIX: Final = "/v1/adyton/models/"
KEY_SUFFIX: Final = "/key"
KEY_MEDIA_TYPE: Final = "application/octet-stream"

_WRONG_KEY: Final = 403
_UNUSABLE_FILE: Final = 422

Load = Callable[[Mapping[str, ModelKey]], Awaitable[Application]]
"""Loads all models with these keys, by name, and returns what answers from then on; raises a ConfigError."""


class KeyRelease:
    """The application of an enclave with sealed models. Used from the event loop's thread only."""

    def __init__(self, terms: Mapping[str, SealedTerms], load: Load, profile: Profile) -> None:
        """Wait for the keys of these models.

        Args:
            terms: What is demanded of each sealed model, by its name; at least one.
            load: Called once there is a key for each; again after it failed.
            profile: How sizes of its own answers are hidden.
        """
        self._terms = terms
        self._load = load
        self._profile = profile
        self._keys: dict[str, ModelKey] = {}
        self._loading: asyncio.Task[None] | None = None
        self._application: Application | None = None

    def waiting(self) -> tuple[str, ...]:
        """The models that cannot be served yet because a key is missing or they are being loaded; public."""
        return () if self._application is not None else tuple(self._terms)

    async def __call__(self, request: InnerRequest, facts: ExchangeFacts) -> InnerResponse:
        """Answer one opened request; nothing but cancellation is raised."""
        path = request.path
        if path.startswith(KEY_PREFIX) and path.endswith(KEY_SUFFIX):
            try:
                return await self._release(request, path.removeprefix(KEY_PREFIX).removesuffix(KEY_SUFFIX))
            except EngineError as error:
                return self._refusal(error.status, error, error_headers(error))
            except WrongModelKey as error:
                return self._refusal(_WRONG_KEY, error)
            except ConfigError as error:
                return self._refusal(_UNUSABLE_FILE, error)
            except Exception as error:  # noqa: BLE001 - no failure may leave the enclave but as a sealed answer
                note(Happening.INTERNAL_ERROR, error=error)
                failed = InternalError("the models could not be loaded")
                return self._refusal(failed.status, failed)
        if self._application is None:
            names = ", ".join(self._terms)
            missing = ModelKeyMissing(f"model key not released yet: {names}; the operator has to release it")
            return self._refusal(missing.status, missing)
        return await self._application(request, facts)

    async def settle(self) -> None:
        """Wait for models that are being loaded; nothing can be freed meanwhile."""
        if self._loading is not None:
            await asyncio.wait([self._loading])

    async def _release(self, request: InnerRequest, name: str) -> InnerResponse:
        if request.method != "PUT":
            raise WrongMethod("PUT")
        terms = self._terms.get(name)
        if terms is None:
            raise NoSuchRoute("no sealed model has this name")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if len(request.body) != KEY_BYTES or media_type != KEY_MEDIA_TYPE:
            raise InvalidRequest(f"a model key is {KEY_BYTES} bytes of {KEY_MEDIA_TYPE}", param="key")
        key = ModelKey(request.body)
        if key.key_id != terms.key_id:
            key.wipe()
            note(Happening.KEY_REFUSED)
            raise WrongModelKey("this is not the key of the model; the enclave still waits for it")
        if self._application is None:
            self._keys.setdefault(name, key)
            missing = [other for other in self._terms if other not in self._keys]
            if missing:
                return self._answer(202, {"model": name, "state": "waiting", "missing": missing})
            if self._loading is None:
                self._loading = asyncio.create_task(self._open())
            # Whoever hangs up does not stop what others wait for.
            await asyncio.shield(self._loading)
        key.wipe()
        return self._answer(200, {"model": name, "state": "serving"})

    async def _open(self) -> None:
        try:
            self._application = await self._load(self._keys)
        except ConfigError as error:
            note(Happening.MODELS_REFUSED, error=error)
            raise
        finally:
            self._loading = None
            for key in self._keys.values():
                key.wipe()
            self._keys.clear()

    def _answer(self, status: int, document: Mapping[str, object]) -> InnerResponse:
        return InnerResponse(
            status=status,
            headers=(("content-type", "application/json"),),
            body=json.dumps(document).encode("ascii"),
            profile=self._profile,
        )

    def _refusal(
        self,
        status: int,
        error: AdytonError,
        headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),),
    ) -> InnerResponse:
        kind = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004 - RFC 9110 section 15.6
        members = {"message": str(error), "type": kind, "param": None, "code": error.code.replace("-", "_")}
        return InnerResponse(
            status=status,
            headers=headers,
            body=json.dumps({"error": members}).encode("ascii"),
            profile=self._profile,
        )
