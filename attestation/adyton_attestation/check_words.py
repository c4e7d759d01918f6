# SPDX-License-Identifier: Apache-2.0
"""The checks of an appraisal for people: what each asks, and the rule that it was held to.

Where a policy decides, the rule is what that policy says at that time (:mod:`adyton_attestation.policy_words`); where
nothing can be chosen, it is the demand that ``docs/appraisal.md`` explains. No I/O, no clock.
"""

from dataclasses import dataclass
from typing import Final

from adyton_attestation.checks import Check, CheckName, Verdict
from adyton_attestation.policy import AppraisalPolicy
from adyton_attestation.policy_words import explain_policy
from adyton_protocol.strict_json import JsonObject

_WORDS: Final[dict[CheckName, tuple[str, str]]] = {
    CheckName.EVIDENCE_TYPE: (
        "Is it evidence of the kind that was asked for?",
        "real evidence for a real verifier, simulated evidence for a simulated one; never the other",
    ),
    CheckName.QUOTE_FORMAT: (
        "Can the quote be read in one way only?",
        "every length of the quote is consistent, and no byte is without a field",
    ),
    CheckName.QUOTE_LENGTH: (
        "Is there nothing behind the quote?",
        "nothing but zero bytes follows the quote",
    ),
    CheckName.DEBUG_DISABLED: ("Are debuggers kept out?", "DEBUG is off; no policy can relax this"),
    CheckName.ENDORSEMENTS_FORMAT: (
        "Are the vendor's statements about the platform complete?",
        "TCB info, QE identity, both revocation lists and their chains are there and can be read",
    ),
    CheckName.SIGNING_CHAINS: (
        "Did the right certificate sign these statements?",
        "a TCB signing certificate, issued by the pinned root itself",
    ),
    CheckName.PCK_CHAIN: (
        "Is the machine certified by the vendor?",
        "the quote holds exactly PCK certificate, PCK CA and the pinned root, each issued by the next",
    ),
    CheckName.ENDORSEMENTS_CURRENT: (
        "Was everything in force at the time?",
        "statements, revocation lists and certificates are valid at the time of the appraisal, without grace",
    ),
    CheckName.NOT_REVOKED: (
        "Has nothing been revoked?",
        "neither revocation list names a certificate in use, and each is signed by its CA",
    ),
    CheckName.ENDORSEMENT_SIGNATURES: (
        "Are the vendor's statements unchanged?",
        "TCB info and QE identity are signed, as received, by their signing certificates",
    ),
    CheckName.QUOTE_SIGNATURES: (
        "Did the hardware sign the quote?",
        "PCK key, QE report, attestation key and enclave report are one chain of signatures",
    ),
    CheckName.DCAP_VERIFICATION: (
        "Does a second implementation agree?",
        "dcap-qvl verifies quote and endorsements as a whole below the pinned root",
    ),
    CheckName.PCE_IDENTITY: (
        "Are the statements about this kind of machine?",
        "TCB info names the PCE that stands in the PCK certificate",
    ),
    CheckName.TCB_STATUS: ("Are microcode and firmware up to date?", "the policy names the TCB status"),
    CheckName.ADVISORIES: (
        "Which security advisories stand against the machine?",
        "the policy allows each advisory",
    ),
    CheckName.EVALUATION_NUMBER: (
        "Do the vendor's statements know of the latest flaws?",
        "the evaluation number is at least the policy's",
    ),
    CheckName.ROLLBACK: (
        "Is nothing older than what was seen before?",
        "evaluation number and CRL numbers are not below the highest that were seen here",
    ),
    CheckName.ENDORSEMENT_AGE: (
        "Are the vendor's statements recent?",
        "none is older than the policy's limit",
    ),
    CheckName.PLATFORM: ("Which machine is it, and who keeps it?", "the policy enrols the machine"),
    CheckName.RELEASE_SIGNATURES: (
        "Are the releases signed by the right people?",
        "as many of the policy's signers as it wants signed each release, if it names signers",
    ),
    CheckName.RELEASE_LOG: (
        "Are the releases those that everybody sees?",
        "every release stands in a signed log that contains what was seen of it before",
    ),
    CheckName.REFERENCE_VALUES: (
        "Is there a release in force?",
        "one has begun, has not ended and was not withdrawn, if the policy goes by releases",
    ),
    CheckName.ATTRIBUTES: ("Is the enclave set up as it should be?", "flags and XFRM are the policy's"),
    CheckName.ENCLAVE_IDENTITY: (
        "Is it the enclave that was expected?",
        "the policy, or a release in force, names the enclave",
    ),
    CheckName.MISC_SELECT: ("Are its faults kept to itself?", "MISCSELECT is the policy's"),
    CheckName.KEY_SEPARATION: (
        "Did the host leave its identity alone?",
        "CONFIGID, CONFIGSVN, extended product and family are the policy's",
    ),
    CheckName.CHALLENGE: (
        "Does it answer this very question?",
        "the report states the challenge that was sent for it",
    ),
    CheckName.KEY_BINDING: (
        "Do the keys belong to the enclave?",
        "the quote's report data is the hash of this keyset and the challenge that was sent",
    ),
    CheckName.KEYS_CURRENT: (
        "Are the keys in force?",
        "the keys have not ended, and end within the policy's limit",
    ),
    CheckName.CONFIGURATION: (
        "Is it configured as expected?",
        "the policy, or the enclave's release, names the configuration",
    ),
    CheckName.MODELS: (
        "Are the models the ones that were expected?",
        "the policy, or the enclave's release, names every model",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedCheck:
    """One verdict with the question behind it.

    Attributes:
        number: As :class:`~adyton_attestation.checks.Check`.
        name: As there.
        verdict: As there.
        question: What the check asks, for somebody who knows no attestation.
        detail: What was found; may hold words out of hostile evidence.
        rules: What it was held to, one sentence each; at least one. May hold words out of the policy.
    """

    number: int
    name: str
    verdict: Verdict
    question: str
    detail: str
    rules: tuple[str, ...]

    def to_json(self) -> JsonObject:
        """Return the JSON object: that of the check, with question and rules."""
        return {
            "number": self.number,
            "name": self.name,
            "verdict": self.verdict,
            "question": self.question,
            "detail": self.detail,
            "rules": [*self.rules],
        }


def explain_checks(
    checks: tuple[Check, ...], policy: AppraisalPolicy, now_s: int
) -> tuple[ExplainedCheck, ...]:
    """Put to each verdict the question and the rules.

    Args:
        checks: Of one appraisal.
        policy: What it was made with.
        now_s: Unix time of the appraisal; decides what was relaxed then.
    """
    said: dict[CheckName, list[str]] = {}
    for statement in explain_policy(policy, now_s):
        if statement.check is not None and statement.text not in said.setdefault(statement.check, []):
            said[statement.check].append(statement.text)
    explained = []
    for check in checks:
        name = CheckName(check.name)
        question, demand = _WORDS[name]
        explained.append(
            ExplainedCheck(
                number=check.number,
                name=check.name,
                verdict=check.verdict,
                question=question,
                detail=check.detail,
                rules=tuple(said.get(name, (demand,))),
            )
        )
    return tuple(explained)
