# SPDX-License-Identifier: Apache-2.0
"""Receipts of this process: begun when a request is taken, signed when its answer is complete, kept for a while.

A receipt is found by its name, which is random and known to the caller alone, and only through the sealed channel.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from adyton_enclave.exchange import ExchangeFacts, InnerRequest
from adyton_protocol.digests import Digest, jcs
from adyton_protocol.receipt import (
    ANSWER_SCORED,
    SCALING_RUN,
    SCORED_ANSWER_LABEL,
    SCORES_LABEL,
    Receipt,
    ReceiptBuilder,
)
from adyton_protocol.scaling_replay import search_event
from adyton_protocol.scaling_transcript import Transcript
from adyton_protocol.strict_json import JsonObject

KEPT_RECEIPTS: Final = 1024
_ID_BYTES: Final = 18


class OpenReceipt:
    """The receipt of one generation, until it is signed."""

    def __init__(
        self, builder: ReceiptBuilder, facts: ExchangeFacts, keep: Callable[[Receipt], None]
    ) -> None:
        self._builder = builder
        self._facts = facts
        self._keep = keep

    def response_data(self, data: bytes) -> None:
        """Take in the next bytes of the body that the caller sees."""
        self._builder.response_data(data)

    def scored(self, *, name: str, problem: str, steps: Sequence[str], scores: Sequence[float]) -> None:
        """Note that the model ``name`` judged an answer.

        The commitments are to canonical JSON (RFC 8785): of an array of the problem and of the array of steps, and of
        the array of scores.
        """
        builder = self._builder
        builder.event(
            ANSWER_SCORED,
            {
                "scorer": name,
                "steps": len(steps),
                "answer_commitment": builder.commitment(SCORED_ANSWER_LABEL, jcs([problem, list(steps)])),
                "scores_commitment": builder.commitment(SCORES_LABEL, jcs(list(scores))),
            },
        )

    def took_part(self, *, name: str, identity: Digest) -> None:
        """Note a further model that had a part in the answer."""
        self._builder.model_identity(name=name, identity=identity)

    def searched(self, transcript: Transcript, *, policy_tokens: int, scorer_tokens: int) -> None:
        """Note a search: in clear what was run and what it cost, as commitments all that was said and chosen."""
        fields = search_event(transcript, self._builder.commitment)
        cost: JsonObject = {"policy_tokens": policy_tokens, "scorer_tokens": scorer_tokens}
        self._builder.event(SCALING_RUN, fields | cost)

    def finish(
        self, *, finish_reasons: list[str], usage: dict[str, int], streamed: bool, chat_id: str | None
    ) -> Receipt:
        """Close the log, sign it with the key of the epoch that the request was sealed under, and keep it."""
        self._builder.generation_finished(finish_reasons=finish_reasons, usage=usage)
        # The time of acceptance: a long answer may end after its keyset has expired, and was still served under
        # it.
        receipt = self._builder.sign(
            self._facts.signer, served_at=self._facts.accepted_at, streamed=streamed, chat_id=chat_id
        )
        self._keep(receipt)
        return receipt


class ReceiptBook:
    """Makes receipts and keeps the last ones."""

    def __init__(self, entropy: Callable[[int], bytes], *, capacity: int = KEPT_RECEIPTS) -> None:
        self._entropy = entropy
        self._capacity = capacity
        self._receipts: OrderedDict[str, Receipt] = OrderedDict()
        self._of_answers: dict[str, Receipt] = {}

    def open(
        self, request: InnerRequest, facts: ExchangeFacts, *, model: str, identity: Digest
    ) -> OpenReceipt:
        """Begin the receipt of a generation."""
        builder = ReceiptBuilder(
            receipt_id="rcpt-" + self._entropy(_ID_BYTES).hex(),
            keyset_digest=facts.keyset_digest,
            receipt_secret=facts.receipt_secret,
            enc=facts.enc,
            request_body=request.body,
            endpoint=request.path,
            method=request.method,
            model=model,
        )
        builder.model_identity(name=model, identity=identity)
        return OpenReceipt(builder, facts, self._keep)

    def find(self, name: str) -> bytes | None:
        """The canonical form of a receipt that is still kept, by its own id or by that of its answer.

        Both are random; ``aci/1`` section 7.1 wants either to do.
        """
        found = self._receipts.get(name) or self._of_answers.get(name)
        return None if found is None else found.to_bytes()

    def _keep(self, receipt: Receipt) -> None:
        self._receipts[receipt.receipt_id] = receipt
        if receipt.chat_id is not None:
            self._of_answers[receipt.chat_id] = receipt
        while len(self._receipts) > self._capacity:
            _, gone = self._receipts.popitem(last=False)
            if gone.chat_id is not None:
                self._of_answers.pop(gone.chat_id, None)
