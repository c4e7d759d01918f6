# SPDX-License-Identifier: Apache-2.0
"""Making a choice again, and holding it against the receipt that was signed for it.

The event ``scaling.run`` of a receipt says in clear what was run, how wide and why it ended, and commits to candidates,
votes and everything else of the :class:`~adyton_protocol.scaling_transcript.Transcript` under a label each. Whoever
holds the opening keys of the three labels and the transcript can show that the enclave chose among these very
candidates, and that the choice follows from them by the rule.

What this does not show: that the candidates are what the model says and the scores what the scorer says. That is for
attestation, and for a replay of the generation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from adyton_protocol.digests import COMMITMENT_CHARS, COMMITMENT_PATTERN, commitment_matches, opening_key
from adyton_protocol.errors import ReceiptError
from adyton_protocol.receipt import SCALING_RUN, VerifiedReceipt
from adyton_protocol.scaling_transcript import Part, Transcript
from adyton_protocol.selection.candidate import Selection
from adyton_protocol.selection.choose import select
from adyton_protocol.selection.stopping import decided
from adyton_protocol.strict_json import JsonObject, Members

LABELS: Final[dict[Part, str]] = {
    "candidates": "scaling.run.candidates",
    "votes": "scaling.run.votes",
    "selection": "scaling.run.selection",
}
"""Of the commitments of a ``scaling.run`` event."""

AGREED: Final = "agreed"
"""The reason to stop that can be checked: the vote was decided."""

Difference = Literal["winners", "votes", "abstained", "stop_reason"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """A choice that was made again.

    Attributes:
        selection: What follows from the candidates by the rule.
        differences: What the transcript says otherwise; empty if it is the same choice.
    """

    selection: Selection
    differences: tuple[Difference, ...]


def replay(transcript: Transcript) -> ReplayResult:
    """Choose again among the candidates of a transcript, and compare bit for bit.

    A search that ended because the vote was decided must have been decided by the candidates that it lists.

    Args:
        transcript: Attacker-controlled.
    """
    found, said = select(transcript.candidates, transcript.rule), transcript.selection
    same: dict[Difference, bool] = {
        "winners": found.winners == said.winners,
        "votes": found.votes == said.votes,
        "abstained": found.abstained == said.abstained,
        "stop_reason": transcript.stop_reason != AGREED
        or decided(transcript.candidates, transcript.rule, transcript.stop),
    }
    return ReplayResult(
        selection=found, differences=tuple(name for name, is_same in same.items() if not is_same)
    )


def search_event(transcript: Transcript, commitment: Callable[[str, bytes], str]) -> JsonObject:
    """The fields of the event ``scaling.run``.

    Args:
        transcript: Of the search.
        commitment: Commits to bytes under a label: :meth:`adyton_protocol.receipt.ReceiptBuilder.commitment`.

    Raises:
        LocalProtocolError: A text of the transcript is not Unicode.
    """
    fields: JsonObject = {
        "strategy": transcript.strategy,
        "n": transcript.n,
        "candidates": len(transcript.candidates),
        "stop_reason": transcript.stop_reason,
    }
    for part, data in transcript.parts().items():
        fields[f"{part}_commitment"] = commitment(LABELS[part], data)
    return fields


def search_keys(receipt_secret: bytes) -> dict[Part, bytes]:
    """The opening keys of a search, 32 bytes each; to be disclosed only with the transcript.

    Args:
        receipt_secret: Of the exchange, 32 bytes.

    Raises:
        LocalProtocolError: The secret has another length.
    """
    return {part: opening_key(receipt_secret, label) for part, label in LABELS.items()}


def check_search(verified: VerifiedReceipt, transcript: Transcript, keys: Mapping[Part, bytes]) -> None:
    """Check that a receipt was signed for this very search, and that the choice follows from its candidates.

    1. The receipt speaks of exactly one search.
    2. Strategy, width, number of candidates and reason to stop are those of the transcript.
    3. Candidates, votes and the rest are what was committed to.
    4. The choice, made again, is the same.

    Args:
        verified: The receipt, its signature verified under an attested key.
        transcript: Attacker-controlled.
        keys: The opening keys, of :func:`search_keys` or disclosed by whoever has the receipt secret.

    Raises:
        ReceiptError: Any of it does not hold, or a key is missing.
        LocalProtocolError: A key has not 32 bytes.
    """
    event = check_search_event(verified, transcript)
    for part, label in LABELS.items():
        if part not in keys:
            raise ReceiptError(f"receipt: no opening key for {label}")
        check_part(event, transcript, part, keys[part])
    if differences := replay(transcript).differences:
        raise ReceiptError(f"receipt: the choice made again differs in {', '.join(differences)}")


def check_search_event(verified: VerifiedReceipt, transcript: Transcript) -> Members:
    """Steps 1 and 2 of :func:`check_search`; returns the event for :func:`check_part`.

    Raises:
        ReceiptError: The receipt speaks of no search, of several, or of another one.
    """
    events = verified.receipt.events_of(SCALING_RUN)
    if len(events) != 1:
        raise ReceiptError(f"receipt: not exactly one event {SCALING_RUN}")
    event = Members(dict(events[0].fields), SCALING_RUN, ReceiptError)
    said = search_event(transcript, lambda _label, _data: "")
    for name in ("strategy", "n", "candidates", "stop_reason"):
        if event.raw(name) != said[name] or type(event.raw(name)) is not type(said[name]):
            raise ReceiptError(f"receipt: signed for a search with another {name}")
    return event


def check_part(event: Members, transcript: Transcript, part: Part, key: bytes) -> None:
    """Step 3 of :func:`check_search`, for one part.

    Args:
        event: Of :func:`check_search_event`.
        transcript: Attacker-controlled.
        part: Which.
        key: Its opening key, 32 bytes.

    Raises:
        ReceiptError: The receipt commits to something else, or to nothing.
        LocalProtocolError: The key has not 32 bytes.
    """
    committed = event.text(f"{part}_commitment", max_chars=COMMITMENT_CHARS, pattern=COMMITMENT_PATTERN)
    if not commitment_matches(committed, key, transcript.parts()[part]):
        raise ReceiptError(f"receipt: does not commit to this transcript's {part}")
