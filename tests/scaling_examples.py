# SPDX-License-Identifier: Apache-2.0
"""One set of candidates and every choice among them: the source of the vectors in ``tests/vectors/scaling.json``.

``python tests/scaling_examples.py`` rewrites them; a test keeps them equal to what the code says today. A change here
means that receipts of yesterday are replayed to another choice today.
"""

import json
from pathlib import Path
from typing import Any, Final

from wire_examples import ENC, REQUEST_BODY, RESPONSE_BODY, SECRET, SERVED_AT, Signer, keyset

from adyton_protocol.errors import ReceiptError
from adyton_protocol.receipt import SCALING_RUN, ReceiptBuilder, VerifiedReceipt, verify_receipt
from adyton_protocol.scaling_replay import replay, search_event, search_keys
from adyton_protocol.scaling_transcript import Transcript, parse_transcript
from adyton_protocol.selection import allocation
from adyton_protocol.selection.bounds import Budget, StopRule
from adyton_protocol.selection.candidate import METHODS, Candidate, SelectionRule
from adyton_protocol.selection.choose import select
from adyton_protocol.selection.stopping import decided

VECTORS: Final = Path(__file__).parent / "vectors" / "scaling.json"

CANDIDATES: Final = (
    Candidate(text="2 + 3 = 5\nThe answer is: 5", n_tokens=12, logprob=-3.25, scores=(0.9, 0.8)),
    Candidate(text="2 * 3 = 6\nThe answer is: 6", n_tokens=12, logprob=-4.1, scores=(0.75, 0.99)),
    Candidate(text="It is five.\nThe answer is: 5.0", n_tokens=14, logprob=-9.6, scores=(0.2,)),
    Candidate(text="2 + 3 = 5\nThe answer is: 5", n_tokens=12, logprob=-3.25, scores=(0.9, 0.8)),
    Candidate(text="I cannot say.", n_tokens=5, logprob=-14.7, scores=(0.97,)),
    Candidate(text="2 + 3 = 4\nThe answer is: 4", n_tokens=12, logprob=-5.5),
    Candidate(text="2 + 3 = ", n_tokens=8, logprob=-1.5, scores=(1.0,), complete=False),
    Candidate(text="Twice three.\nThe answer is: 6", n_tokens=15, logprob=-17.3, scores=(0.6, 0.7)),
    Candidate(
        text="Caf\u00e9 \u2014 \U0001f9ee\nThe answer is: 10/2", n_tokens=19, logprob=-21.0, scores=(0.1,)
    ),
    Candidate(text="The answer is: 7", n_tokens=7, logprob=-22.5, scores=(0.999,)),
    Candidate(text="2 + 2 = 4\nThe answer is: 4", n_tokens=12, logprob=-5.75, scores=(0.5, 0.01)),
    Candidate(text="", n_tokens=1, logprob=-30.0),
)
REJECTED: Final = (
    ("a blank between members", '"n":12', '"n": 12'),
    ("another spelling of a number", "-21,", "-21.0,"),
    ("an exponent that the canonical form does not write", "1000000000000000000", "1e18"),
    ("an escaped letter", "Caf\u00e9", "Caf\\u00e9"),
    ("another version", '"version":1', '"version":2'),
    ("an unknown member", '"version":1', '"version":1,"verified":true'),
    ("a member twice", '"version":1', '"version":1,"version":1'),
    ("an unknown method", '"method":"weighted"', '"method":"best"'),
    ("a probability above 1", '"logprob":-21', '"logprob":21'),
    ("a score above 1", '"scores":[0.999]', '"scores":[1.999]'),
    ("a score that is no number", '"scores":[0.999]', '"scores":[NaN]'),
    ("a winner that is no candidate", '"winners":[0,1]', '"winners":[0,12]'),
    ("no winner", '"winners":[0,1]', '"winners":[]'),
    ("a winner twice", '"winners":[0,1]', '"winners":[0,0]'),
)
"""What is done to the canonical form, so that it is no transcript any more."""

DISHONEST: Final = (
    ("another winner", '"winners":[0,1]', '"winners":[1,0]'),
    ("fewer winners", '"winners":[0,1]', '"winners":[0]'),
    ("a weight that differs in its last bit", "1.7400000000000002", "1.74"),
    ("an abstention that is not told", '"abstained":[4,6,11]', '"abstained":[4,11]'),
    ("a candidate that says something else", "The answer is: 10/2", "The answer is: 12/2"),
    ("a candidate that is thought better of", '"scores":[0.6,0.7]', '"scores":[0.6,0.75]'),
    ("another rule", '"aggregate":"prod"', '"aggregate":"last"'),
    ("a vote that was not decided", '"stop_reason":"complete"', '"stop_reason":"agreed"'),
)
"""What is done to it, so that the choice does not follow any more."""

ALLOCATIONS: Final = (
    ((0.9, 0.5, 0.1), 16),
    ((0.5, 0.5, 0.5), 8),
    ((1.0, 0.99, 0.98, 0.2, 0.0), 7),
    ((0.3,), 64),
)


def transcript(**changes: Any) -> Transcript:
    """The example's search: a weighted vote."""
    rule = SelectionRule(method="weighted", k=2)
    members: dict[str, Any] = {
        "strategy": "rebase",
        "n": 12,
        "scorer": "demo-scorer",
        "rule": rule,
        "budget": Budget(policy_tokens=4096, total_flops=1e18, time_s=2.5),
        "stop": StopRule(),
        "stop_reason": "complete",
        "candidates": CANDIDATES,
    } | changes
    if "selection" not in members:
        members["selection"] = select(members["candidates"], members["rule"])
    return Transcript(**members)


def receipt_for(search: Transcript, *, times: int = 1) -> VerifiedReceipt:
    """A receipt that speaks of a search, signed and verified."""
    builder = ReceiptBuilder(
        receipt_id="rcpt-search",
        keyset_digest=keyset().digest(),
        receipt_secret=SECRET,
        enc=ENC,
        request_body=REQUEST_BODY,
        endpoint="/v1/chat/completions",
    )
    for _ in range(times):
        builder.event(SCALING_RUN, search_event(search, builder.commitment))
    builder.response_data(RESPONSE_BODY)
    return verify_receipt(builder.sign(Signer(), served_at=SERVED_AT, streamed=False), keyset())


def vectors() -> dict[str, Any]:
    """All of it as JSON."""
    search = transcript()
    event = receipt_for(search).receipt.events_of(SCALING_RUN)[0]
    return {
        "source": "adyton: tests/scaling_examples.py",
        "candidates": search.to_json()["candidates"],
        "selections": {
            method: _selection(SelectionRule(method=method, aggregate="prod", k=3)) for method in METHODS
        },
        "weighted_by_aggregate": {
            how: _selection(SelectionRule(method="weighted", aggregate=how, k=1))
            for how in ("last", "min", "prod", "mean")
        },
        "decided": {
            f"{kind}-{window}": [
                decided(CANDIDATES[:n], SelectionRule(method="majority"), StopRule(kind=kind, window=window))
                for n in range(len(CANDIDATES) + 1)
            ]
            for kind, window in (("esc", 2), ("beta", 1), ("dirichlet", 1))
        },
        "rebase": [
            {
                "rewards": rewards,
                "width": width,
                "temperature": 0.2,
                "children": allocation.rebase(rewards, width, 0.2),
            }
            for rewards, width in ALLOCATIONS
        ],
        "transcript": search.to_bytes().decode(),
        "rejected": [
            {"why": why, "replace": old, "by": new, "code": rejection_code(altered(old, new))}
            for why, old, new in REJECTED
        ],
        "replayed": [
            {
                "why": why,
                "replace": old,
                "by": new,
                "differences": replay(parse_transcript(altered(old, new))).differences,
            }
            for why, old, new in DISHONEST
        ],
        "receipt_secret": SECRET.hex(),
        "opening_keys": {part: key.hex() for part, key in search_keys(SECRET).items()},
        "event": dict(event.fields),
    }


def vector_text() -> str:
    """The file."""
    return json.dumps(vectors(), indent=1) + "\n"


def altered(old: str, new: str) -> bytes:
    """The example's canonical form with one piece of text replaced, where it stands for the first time."""
    return transcript().to_bytes().decode().replace(old, new, 1).encode()


def rejection_code(data: bytes) -> str | None:
    """The code of the error that a text leads to."""
    try:
        parse_transcript(data)
    except ReceiptError as error:
        return error.code
    return None


def _selection(rule: SelectionRule) -> dict[str, Any]:
    search = transcript(rule=rule).to_json()
    return {name: search[name] for name in ("winners", "votes", "abstained")}


if __name__ == "__main__":
    VECTORS.write_text(vector_text())
