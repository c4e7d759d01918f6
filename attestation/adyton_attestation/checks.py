# SPDX-License-Identifier: Apache-2.0
"""The checks of an appraisal: their names, their order, and the ledger that records each verdict.

The numbers are the order of :class:`CheckName`; the names are stable and part of the public contract, because
errors, result documents and policies use them. ``docs/appraisal.md`` explains each, and a test compares the two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, TypeAlias, TypeVar

from adyton_protocol.errors import (
    AppraisalError,
    AttestationError,
    EndorsementError,
    FreshnessError,
    MalformedEvidence,
    ReferenceValueError,
)
from adyton_protocol.strict_json import JsonObject

Verdict: TypeAlias = Literal["pass", "fail", "skip"]
T = TypeVar("T")


class CheckName(StrEnum):
    """Every check, in order; the first one that fails is the error that is raised."""

    EVIDENCE_TYPE = "evidence-type"
    QUOTE_FORMAT = "quote-format"
    QUOTE_LENGTH = "quote-length"
    DEBUG_DISABLED = "debug-disabled"
    ENDORSEMENTS_FORMAT = "endorsements-format"
    SIGNING_CHAINS = "signing-chains"
    PCK_CHAIN = "pck-chain"
    ENDORSEMENTS_CURRENT = "endorsements-current"
    NOT_REVOKED = "not-revoked"
    ENDORSEMENT_SIGNATURES = "endorsement-signatures"
    QUOTE_SIGNATURES = "quote-signatures"
    DCAP_VERIFICATION = "dcap-verification"
    PCE_IDENTITY = "pce-identity"
    TCB_STATUS = "tcb-status"
    ADVISORIES = "advisories"
    EVALUATION_NUMBER = "evaluation-number"
    ROLLBACK = "rollback"
    ENDORSEMENT_AGE = "endorsement-age"
    PLATFORM = "platform"
    RELEASE_SIGNATURES = "release-signatures"
    RELEASE_LOG = "release-log"
    REFERENCE_VALUES = "reference-values"
    ATTRIBUTES = "attributes"
    ENCLAVE_IDENTITY = "enclave-identity"
    MISC_SELECT = "misc-select"
    KEY_SEPARATION = "key-separation"
    CHALLENGE = "challenge"
    KEY_BINDING = "key-binding"
    KEYS_CURRENT = "keys-current"
    CONFIGURATION = "configuration"
    MODELS = "models"


NUMBERS: Final[dict[CheckName, int]] = {name: number for number, name in enumerate(CheckName, start=1)}

ERRORS: Final[dict[CheckName, type[AttestationError]]] = {
    CheckName.QUOTE_FORMAT: MalformedEvidence,
    CheckName.QUOTE_LENGTH: MalformedEvidence,
    CheckName.ENDORSEMENTS_FORMAT: EndorsementError,
    CheckName.SIGNING_CHAINS: EndorsementError,
    CheckName.PCK_CHAIN: EndorsementError,
    CheckName.ENDORSEMENTS_CURRENT: EndorsementError,
    CheckName.NOT_REVOKED: EndorsementError,
    CheckName.ENDORSEMENT_SIGNATURES: EndorsementError,
    CheckName.PCE_IDENTITY: EndorsementError,
    CheckName.ROLLBACK: EndorsementError,
    CheckName.ENDORSEMENT_AGE: EndorsementError,
    CheckName.RELEASE_SIGNATURES: ReferenceValueError,
    CheckName.RELEASE_LOG: ReferenceValueError,
    CheckName.REFERENCE_VALUES: ReferenceValueError,
    CheckName.CHALLENGE: FreshnessError,
    CheckName.KEYS_CURRENT: FreshnessError,
}
"""Which error a failed check raises; every other one raises :class:`AppraisalError`.

``release-log`` may raise a more special :class:`ReferenceValueError`: rolled back, or forked.
"""

OF_ENDORSEMENTS: Final = frozenset(
    {
        CheckName.ENDORSEMENTS_FORMAT,
        CheckName.SIGNING_CHAINS,
        CheckName.ENDORSEMENTS_CURRENT,
        CheckName.ENDORSEMENT_SIGNATURES,
        CheckName.ROLLBACK,
        CheckName.ENDORSEMENT_AGE,
    }
)
"""Checks whose failure says that these endorsements are unfit, and nothing about the platform; others may be had
elsewhere. A revoked certificate or a chain that is none is the platform's, though the error has the same class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One verdict.

    Attributes:
        number: Position in :class:`CheckName`, from 1.
        name: Stable name.
        verdict: ``pass``, ``fail`` or ``skip``.
        detail: What was found, in plain language; public.
    """

    number: int
    name: str
    verdict: Verdict
    detail: str

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {"number": self.number, "name": self.name, "verdict": self.verdict, "detail": self.detail}


class Refusal(Exception):
    """A check did not hold; caught by the ledger and nowhere else.

    Attributes:
        expected: What the check demands, in words.
        actual: What the evidence says, in words.
    """

    def __init__(self, expected: str, actual: str) -> None:
        """Keep both facts."""
        super().__init__(f"expected {expected}, found {actual}")
        self.expected = expected
        self.actual = actual


class Skipped(Exception):
    """A check was not made; the message says why. Caught by the ledger and nowhere else."""


class Ledger:
    """Runs checks, records every verdict, and raises for the first failure at the end.

    A check is a function that returns its detail and a value, or raises :class:`Refusal` or :class:`Skipped`.
    """

    def __init__(self) -> None:
        """Start with nothing checked."""
        self._verdicts: dict[CheckName, Check] = {}
        self._refusals: dict[CheckName, Exception] = {}

    def run(self, name: CheckName, check: Callable[[], tuple[str, T]]) -> T | None:
        """Make one check; returns its value, or None when it failed or was skipped."""
        try:
            detail, value = check()
        except Skipped as reason:
            self._record(name, "skip", str(reason))
            return None
        except Refusal as refusal:
            self._refusals[name] = refusal
            self._record(name, "fail", f"found {refusal.actual}; expected {refusal.expected}")
            return None
        except (MalformedEvidence, EndorsementError, ReferenceValueError) as error:
            self._refusals[name] = error
            self._record(name, "fail", str(error))
            return None
        self._record(name, "pass", detail)
        return value

    def skip(self, reason: str, *names: CheckName) -> None:
        """Record checks that cannot be made."""
        for name in names:
            self._record(name, "skip", reason)

    def checks(self) -> tuple[Check, ...]:
        """Return every verdict in order. A check without a verdict is a bug, and fails closed."""
        for name in CheckName:
            if name not in self._verdicts:
                self._refusals[name] = Refusal(expected="a verdict", actual="none")
                self._record(name, "fail", "this check was not made")
        return tuple(self._verdicts[name] for name in CheckName)

    def conclude(self) -> tuple[Check, ...]:
        """Return every verdict, or raise for the first failure.

        Raises:
            AttestationError: Of the class that :data:`ERRORS` names, with ``check`` and ``checks``.
        """
        checks = self.checks()
        for name in CheckName:
            if name in self._refusals:
                raise _error(name, self._refusals[name], checks) from self._refusals[name]
        return checks

    def _record(self, name: CheckName, verdict: Verdict, detail: str) -> None:
        self._verdicts[name] = Check(number=NUMBERS[name], name=name.value, verdict=verdict, detail=detail)


def _error(name: CheckName, reason: Exception, checks: tuple[Check, ...]) -> AttestationError:
    kind = type(reason) if isinstance(reason, ReferenceValueError) else ERRORS.get(name, AppraisalError)
    error: AttestationError
    if kind is AppraisalError:
        expected, actual = (
            (reason.expected, reason.actual)
            if isinstance(reason, Refusal)
            else ("a sound document", str(reason))
        )
        error = AppraisalError(name.value, expected=expected, actual=actual)
    else:
        error = kind(f"check {name.value!r} failed: {reason}")
    vars(error)["check"] = name.value
    vars(error)["checks"] = checks
    return error


def checks_of(error: AttestationError) -> tuple[Check, ...]:
    """Return the verdicts that an appraisal attached to its error; empty for errors from elsewhere."""
    found: object = vars(error).get("checks", ())
    return tuple(item for item in found if isinstance(item, Check)) if isinstance(found, tuple) else ()


def endorsements_at_fault(error: AttestationError) -> bool:
    """Whether an appraisal was refused for its endorsements, which says nothing about the platform."""
    return failed_check(error) in OF_ENDORSEMENTS


def failed_check(error: AttestationError) -> str | None:
    """Return the name of the check that an appraisal refused at; None for errors from elsewhere."""
    found: object = vars(error).get("check")
    return found if isinstance(found, str) else None
