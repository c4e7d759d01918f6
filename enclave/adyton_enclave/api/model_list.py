# SPDX-License-Identifier: Apache-2.0
"""``GET /v1/models`` and ``GET /v1/models/{name}``, with the identity that keyset and receipts name too."""

import json

from adyton_enclave.api.events import Json
from adyton_enclave.api.generate import Served, find_model


def _model_json(served: Served, created: int) -> Json:
    model = served.model
    scorer = served.scorer if served.role == "generator" else None
    reason = {} if model.why_inexact is None else {"not_reproducible_because": model.why_inexact}
    return {
        "id": model.name,
        "object": "model",
        "created": created,
        "owned_by": "adyton",
        "role": served.role,
        **({} if scorer is None else {"scorer": scorer.name}),
        "identity": model.identity,
        "n_ctx": model.n_ctx,
        "license": served.license,
        "reproducible": model.why_inexact is None,
        **reason,
    }


def list_models(served: dict[str, Served], *, created: int) -> bytes:
    """All models.

    Args:
        served: By name.
        created: Unix time at which they were loaded.
    """
    data = [_model_json(entry, created) for entry in served.values()]
    return json.dumps({"object": "list", "data": data}).encode("ascii")


def show_model(served: dict[str, Served], name: str, *, created: int) -> bytes:
    """One model.

    Raises:
        UnknownModel: There is none of this name.
    """
    return json.dumps(_model_json(find_model(served, name, lambda _: True), created)).encode("ascii")
