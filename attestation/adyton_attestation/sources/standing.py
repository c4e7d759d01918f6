# SPDX-License-Identifier: Apache-2.0
"""How a set of endorsements stands at a time, by a policy: usable or not, until when, and what ends it.

For people and for monitoring. It decides nothing: the appraisal applies the policy.
"""

from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

from adyton_attestation.policy import TcbPolicy
from adyton_attestation.sources.cache import Kept
from adyton_attestation.times import format_time
from adyton_protocol.strict_json import JsonObject

Verdict: TypeAlias = Literal["usable", "not yet valid", "expired", "too old for the policy", "number too low"]

_AGE_CAP = "the policy's age cap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One set at one time.

    Attributes:
        kept: The set.
        verdict: What an appraisal now would say of its age.
        age_s: Seconds since the oldest part that the age cap counts was issued.
        usable_until_s: Last second at which it is usable, whatever the verdict now is.
        ended_by: What ends it then: a part of the set, or the policy's age cap.
    """

    kept: Kept
    verdict: Verdict
    age_s: int
    usable_until_s: int
    ended_by: str

    @classmethod
    def of(cls, kept: Kept, policy: TcbPolicy, now_s: int) -> Self:
        """Hold a set against a policy."""
        vetted = kept.vetted
        first = vetted.first_to_expire
        cap_s = vetted.issued_s + policy.max_endorsement_age_s
        return cls(
            kept=kept,
            verdict=_verdict(kept, policy, now_s),
            age_s=now_s - vetted.issued_s,
            usable_until_s=min(cap_s, first.last_s),
            ended_by=first.name if first.last_s <= cap_s else _AGE_CAP,
        )

    @property
    def usable(self) -> bool:
        """Whether an appraisal now would take it."""
        return self.verdict == "usable"

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        vetted = self.kept.vetted
        known = vetted.endorsements
        tcb_info, qe_identity, root_crl, pck_crl = vetted.numbers
        return {
            "platform": vetted.family.label,
            "tee": vetted.family.tee,
            "fmspc": vetted.family.fmspc.hex(),
            "ca": vetted.family.ca,
            "source": self.kept.source,
            "channel": self.kept.channel,
            "fetched_at": format_time(self.kept.fetched_s),
            "verdict": self.verdict,
            "age_s": self.age_s,
            "usable_until": format_time(self.usable_until_s),
            "ended_by": self.ended_by,
            "evaluation_number": vetted.evaluation_number,
            "parts": [
                {
                    "name": part.name,
                    "issued": format_time(part.issued_s),
                    "next_update": format_time(part.next_update_s),
                    "number": number,
                }
                for part, number in (
                    (known.tcb_info, tcb_info),
                    (known.qe_identity, qe_identity),
                    (known.root_crl, root_crl),
                    (known.pck_crl, pck_crl),
                )
            ],
        }


def _verdict(kept: Kept, policy: TcbPolicy, now_s: int) -> Verdict:
    vetted = kept.vetted
    if any(now_s > span.last_s for span in vetted.spans):
        return "expired"
    if not vetted.holds_at(now_s):
        return "not yet valid"
    if now_s - vetted.issued_s > policy.max_endorsement_age_s:
        return "too old for the policy"
    if vetted.evaluation_number < policy.min_evaluation_number:
        return "number too low"
    return "usable"
