# SPDX-License-Identifier: Apache-2.0
"""Answers of searches as the enclave words them, made from a transcript; for tests that have no enclave."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from adyton_protocol.scaling_transcript import Transcript

HEAD: dict[str, object] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "tiny",
}


def chosen(search: Transcript, *, whole: bool) -> list[int]:
    """The candidate of each choice: the winners, and with ``whole`` all the others behind them."""
    winners = search.selection.winners
    others = [index for index in range(len(search.candidates)) if index not in winners]
    return [*winners, *(others if whole else ())]


def report_of(search: Transcript, *, whole: bool = True) -> dict[str, Any]:
    """The member ``x_report``; ``whole`` with the transcript, as ``"return": "all"`` asks for it."""
    winner = search.selection.winners[0]
    candidate = search.candidates[winner]
    total = sum(vote.weight for vote in search.selection.votes)
    vote = next((vote for vote in search.selection.votes if winner in vote.members), None)
    report: dict[str, Any] = {
        "strategy": search.strategy,
        "asked": "auto",
        "n": search.n,
        "method": search.rule.method,
        "aggregate": search.rule.aggregate,
        "stop_reason": search.stop_reason,
        "scorer": search.scorer,
        "candidates": {
            "made": len(search.candidates),
            "complete": sum(each.complete for each in search.candidates),
            "abstained": len(search.selection.abstained),
        },
        "choices": chosen(search, whole=whole),
        "votes": [
            {
                "answer": each.shown,
                "candidates": list(each.members),
                "weight": each.weight,
                "share": each.weight / total if total else 0.0,
            }
            for each in search.selection.votes
        ],
        "winner": {
            "candidate": winner,
            "answer": None if vote is None else vote.shown,
            "tokens": candidate.n_tokens,
            "logprob": candidate.logprob,
            "score": candidate.scores[-1] if candidate.scores else None,
            "steps": [{"score": score, "sound": score >= 0.5} for score in candidate.scores],
        },
        "confidence": {
            "value": None if vote is None or not total else vote.weight / total,
            "is": "none" if vote is None or not total else "vote-share",
            "settled": None if vote is None else 0.98,
            "measured": {"accuracy": 0.91, "problems": 500},
        },
        "budget": {"policy_tokens": 4096, "total_flops": None, "ms": None},
        "spent": {
            "policy_tokens": sum(each.n_tokens for each in search.candidates),
            "prompt_tokens": 60,
            "scorer_tokens": 300,
            "policy_flops": 1.5e9,
            "scorer_flops": 2.5e8,
            "total_flops": 1.75e9,
            "ms": 1234,
        },
    }
    if whole:
        report["transcript"] = search.to_json()
    return report


def search_events(search: Transcript, report: Mapping[str, Any]) -> Iterator[bytes]:
    """The events of a stream: progress without text, the winner, other candidates, then usage and report."""
    for ended in range(0, len(search.candidates), 4):
        progress = {"ended": ended, "alive": len(search.candidates) - ended, "policy_tokens": 10 * ended}
        yield _event([{"index": 0, "delta": {}, "finish_reason": None}], {"x_progress": progress})
    for at, index in enumerate(report["choices"]):
        delta = {"content": search.candidates[index].text}
        yield _event([{"index": at, "delta": delta, "finish_reason": None}], {})
        yield _event([{"index": at, "delta": {}, "finish_reason": "stop"}], {})
    yield _event([], {"usage": {"completion_tokens": 9}, "x_report": report})


def _event(choices: list[dict[str, Any]], more: Mapping[str, object]) -> bytes:
    return b"data: " + json.dumps({**HEAD, "choices": choices, **more}).encode() + b"\n\n"
