# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas of what an answer says of the search behind it."""

from typing import Final, get_args

from adyton_enclave.scaling.plan import STRATEGIES
from adyton_enclave.scaling.report import MAX_SHOWN_CHARS, ConfidenceKind
from adyton_enclave.scaling.search import StopReason
from adyton_protocol.selection.aggregate import AGGREGATES
from adyton_protocol.selection.candidate import METHODS
from schema_words import Schema, answered, array, one_of, ref

_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_INDEX: Final[Schema] = {**_COUNT, "description": "A candidate, by its place in the order of their making."}
_SHARE: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 1}
_AMOUNT: Final[Schema] = {"type": "number", "minimum": 0}
_SHOWN: Final[Schema] = {"type": "string", "maxLength": MAX_SHOWN_CHARS}
_NULL: Final[Schema] = {"type": "null"}
_DETAILS: Final = ("returned_tokens", "discarded_tokens", "scorer_tokens")


def token_details() -> Schema:
    """What became of generated tokens; of a search in more detail."""
    return answered({"reasoning_tokens": _COUNT, **dict.fromkeys(_DETAILS, _COUNT)}, optional=_DETAILS)


def search_schemas() -> dict[str, Schema]:
    """Components by name."""
    return {
        "SearchProgress": answered(
            {
                "ended": {**_COUNT, "description": "Candidates that are complete."},
                "alive": {"type": "integer", "description": "Candidates that still grow."},
                "policy_tokens": {**_COUNT, "description": "Generated so far."},
            }
        ),
        "SearchVote": answered(
            {
                "answer": {**_SHOWN, "description": "As its best candidate wrote it."},
                "candidates": array(_INDEX, low=1),
                "weight": _AMOUNT,
                "share": {**_SHARE, "description": "Of all weights."},
            }
        ),
        "SearchReport": _report(),
        "SearchTranscript": {
            "type": "object",
            "description": "Everything from which the choice can be made again; docs/protocol.md has every member.",
            "required": ["version", "strategy", "candidates", "votes", "winners"],
        },
    }


def _report() -> Schema:
    counts = ("policy_tokens", "prompt_tokens", "scorer_tokens", "ms")
    flops = ("policy_flops", "scorer_flops", "total_flops")
    return answered(
        {
            "strategy": {**one_of(*STRATEGIES), "description": "What was run."},
            "asked": one_of(*STRATEGIES),
            "n": {"type": "integer", "minimum": 1},
            "method": one_of(*METHODS),
            "aggregate": one_of(*AGGREGATES),
            "stop_reason": one_of(*get_args(StopReason)),
            "scorer": {"type": ["string", "null"]},
            "candidates": answered(dict.fromkeys(("made", "complete", "abstained"), _COUNT)),
            "choices": array(_INDEX, low=1),
            "votes": array(ref("SearchVote")),
            "winner": answered(
                {
                    "candidate": _INDEX,
                    "answer": _or_null(_SHOWN),
                    "tokens": _COUNT,
                    "logprob": {"type": "number", "maximum": 0},
                    "score": _or_null(_SHARE),
                    "steps": array(answered({"score": _SHARE, "sound": {"type": "boolean"}})),
                }
            ),
            "confidence": answered(
                {
                    "value": _or_null(_SHARE),
                    "is": one_of(*get_args(ConfidenceKind)),
                    "settled": _or_null(_SHARE),
                    "measured": _or_null(answered({"accuracy": _SHARE, "problems": _COUNT})),
                }
            ),
            "budget": answered(dict.fromkeys(("policy_tokens", "total_flops", "ms"), _or_null(_AMOUNT))),
            "spent": answered({**dict.fromkeys(counts, _COUNT), **dict.fromkeys(flops, _AMOUNT)}),
            "tree": answered({"nodes": _COUNT, "widths": array(_COUNT), "given_up": _COUNT}),
            "transcript": ref("SearchTranscript"),
        },
        optional=("tree", "transcript"),
    )


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, _NULL]}
