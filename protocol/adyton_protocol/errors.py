# SPDX-License-Identifier: Apache-2.0
"""The one error tree of the project, shared by every trust domain.

::

    AdytonError                       code, fault, retry_safe
    ├── ConfigError                   a configuration, policy or catalog file is unusable
    │   ├── PlatformError             this process has no platform that could vouch for it
    │   │   ├── NotInEnclave              no /dev/attestation, or none of an SGX enclave
    │   │   └── NoRemoteAttestation       an enclave that was signed without it
    │   ├── AdapterError              a scorer's adapter or head is malformed, or does not suit its model
    │   │   └── GoldenMismatch        the scorer gives other scores than its adapter says
    │   └── ModelFileError            a model file is malformed, hostile or another one: check
    │       └── SealedModelError      a sealed model cannot be opened
    │           ├── SealedModelMalformed    not a sealed model, or of a version not known here
    │           ├── WrongModelKey           sealed under another key
    │           ├── SealedModelTruncated    shorter or longer than its header says
    │           ├── SealedModelAltered      header or chunk: changed, moved, or from another file
    │           ├── SealedModelRolledBack   older than the configuration demands
    │           └── SealedModelMismatch     the file says that it holds another model
    ├── AttestationError              evidence was not accepted
    │   ├── MalformedEvidence         bytes that are not a report, a quote or a keyset
    │   ├── EndorsementError          certificates, CRLs, TCB info: missing, forged, expired
    │   ├── FreshnessError            stale or replayed evidence
    │   ├── ReferenceValueError       signed reference values: missing, malformed, forged, expired or not logged
    │   │   ├── ReleaseRolledBack     older than what was seen before
    │   │   └── ReleaseLogForked      the log tells another history than before
    │   ├── QuoteError                the platform gave the enclave no quote that it could use
    │   │   ├── QuotingServiceAway        nobody signs quotes on this machine right now
    │   │   ├── QuoteMalformed            cut short, too long, or of another format
    │   │   └── QuoteOfAnother            about other report data, or about another enclave
    │   └── AppraisalError            a named check of the policy failed: check, expected, actual
    ├── ProtocolError
    │   ├── LocalProtocolError        we used the protocol wrongly
    │   ├── RemoteProtocolError       the peer did, or somebody between us
    │   │   └── TruncatedMessage      the authenticated end never came
    │   ├── OpenError                 one indistinguishable decryption failure
    │   ├── KeyConfigMismatch         sealed to a key that is gone: attest again, then retry is safe
    │   ├── ReplayedRequest           this encapsulation was already accepted once
    │   └── ReceiptError              a receipt is malformed, forged or about another exchange
    ├── TransportError                I/O between the parties; the original is chained
    │   ├── RelayRefused              the host declined to carry the request: status, reason
    │   └── EndorsementsUnavailable   endorsements could not be had; nothing is known of the platform: source
    │       ├── EndorsementsNotPublished    the source answers, and has none for this platform
    │       └── EndorsementSourceError      what the source sent are no endorsements of this platform in force
    └── EngineError                   the enclave cannot serve this request
        ├── InvalidRequest            param names the field
        ├── UnknownModel
        ├── UnsuitableModel           it exists, but does not answer, embed or score
        ├── ContextOverflow           prompt and answer cannot fit
        ├── QueueFull                 retry_after_s says when
        ├── OutOfMemory
        ├── ModelKeyMissing           a sealed model's key has not been released yet
        ├── Cancelled
        │   └── DeadlineExceeded      the caller's time limit, or the operator's, has passed
        └── EngineStopped             the engine died or is shutting down

Every class carries a stable ``code`` (for programs), whose ``fault`` it is and whether sending the same
request again is safe. Messages may hold public measurements, sizes and names of fields; never prompts,
answers, keys or the stage at which a decryption failed.

This module imports only the standard library, because the untrusted host imports it too.
"""

from typing import ClassVar, Literal

Fault = Literal["caller", "operator", "enclave", "host", "peer", "vendor"]
"""Whose fault an error is. ``peer`` means the other end of the sealed channel or anybody between."""


class AdytonError(Exception):
    """Root of the tree.

    Attributes:
        code: Stable, lower-case, hyphenated name of the error class; part of the public contract.
        fault: Who has to act.
        retry_safe: True when sending the same request again cannot execute it twice.
    """

    code: ClassVar[str] = "adyton"
    fault: ClassVar[Fault] = "peer"
    retry_safe: ClassVar[bool] = False


class ConfigError(AdytonError):
    """A configuration, policy or catalog file is missing, malformed or contradicts itself."""

    code = "config"
    fault: ClassVar[Fault] = "operator"


class PlatformError(ConfigError):
    """This process was told to attest, and runs where nothing can vouch for it. Nothing is served instead."""

    code = "platform"


class NotInEnclave(PlatformError):
    """There is no ``/dev/attestation``, or it is that of a Gramine without SGX."""

    code = "not-in-enclave"


class NoRemoteAttestation(PlatformError):
    """The enclave was signed without remote attestation by DCAP, so nobody outside could check it."""

    code = "no-remote-attestation"


class ModelFileError(ConfigError):
    """A model file is malformed, asks for something absurd, or is not the one that was expected.

    Attributes:
        check: Name of the check that refused it; ``docs/model-identity.md`` lists them.
    """

    code = "model-file"

    def __init__(self, message: str, *, check: str) -> None:
        """Keep the name of the check beside the message."""
        super().__init__(message)
        self.check = check


class SealedModelError(ModelFileError):
    """A sealed model cannot be opened. The check is the code of the class."""

    code = "sealed-model"

    def __init__(self, message: str) -> None:
        """Take the code of the class as the name of the check."""
        super().__init__(message, check=self.code)


class SealedModelMalformed(SealedModelError):
    """Bytes that are no sealed model, or one of a version or with values that are not known here."""

    code = "sealed-model-malformed"


class WrongModelKey(SealedModelError):
    """The model is sealed under another key than the one that was given."""

    code = "sealed-model-key"
    fault: ClassVar[Fault] = "caller"


class SealedModelTruncated(SealedModelError):
    """The sealed file has not the length that its header says."""

    code = "sealed-model-truncated"
    fault: ClassVar[Fault] = "host"


class SealedModelAltered(SealedModelError):
    """The header or a chunk was changed, moved, or comes from another file."""

    code = "sealed-model-altered"
    fault: ClassVar[Fault] = "host"


class SealedModelRolledBack(SealedModelError):
    """The sealed file is older than the configuration demands."""

    code = "sealed-model-rolled-back"
    fault: ClassVar[Fault] = "host"


class SealedModelMismatch(SealedModelError):
    """The sealed file says that it holds another model than the one that is configured."""

    code = "sealed-model-mismatch"


class AdapterError(ConfigError):
    """A scorer's adapter or head file is malformed, or does not suit the model that it is for."""

    code = "scorer-adapter"


class GoldenMismatch(AdapterError):
    """The scorer gives other scores than its adapter's golden vectors: something between text and score is wrong."""

    code = "golden-mismatch"


class AttestationError(AdytonError):
    """Evidence was not accepted; nothing was sent."""

    code = "attestation"
    fault: ClassVar[Fault] = "host"
    retry_safe: ClassVar[bool] = True


class MalformedEvidence(AttestationError):
    """Attacker-controlled bytes that are not a report, a quote, a keyset or a statement."""

    code = "malformed-evidence"


class EndorsementError(AttestationError):
    """Endorsements are missing, do not chain to the pinned root, are revoked or out of their window."""

    code = "endorsement"


class FreshnessError(AttestationError):
    """The evidence does not answer our challenge, or its keys have expired."""

    code = "freshness"


class ReferenceValueError(AttestationError):
    """Signed reference values are missing, malformed, signed by others, out of their time, or not in the log."""

    code = "reference-values"


class ReleaseRolledBack(ReferenceValueError):
    """The reference values are older than some that were accepted before."""

    code = "release-rolled-back"


class ReleaseLogForked(ReferenceValueError):
    """The log of releases does not contain what it contained before.

    Whoever keeps it shows different histories to different people, or changed one. Do not try again; ask its keeper.
    """

    code = "release-log-forked"
    retry_safe: ClassVar[bool] = False


class AppraisalError(AttestationError):
    """A named check of the appraisal policy failed.

    Attributes:
        check: Name of the first failed check, as printed by ``adyton verify``.
        expected: What the policy demands, in words; public.
        actual: What the evidence says, in words; public.
    """

    code = "appraisal"

    def __init__(self, check: str, *, expected: str, actual: str) -> None:
        """Keep the three facts that a reader needs, and build the message from them."""
        super().__init__(f"check {check!r} failed: expected {expected}, found {actual}")
        self.check = check
        self.expected = expected
        self.actual = actual


class QuoteError(AttestationError):
    """The platform gave the enclave no quote that it could hand on."""

    code = "quote"


class QuotingServiceAway(QuoteError):
    """No quote came at all: the service that signs quotes does not run, or has no certificate for this platform."""

    code = "quoting-service-away"
    fault: ClassVar[Fault] = "operator"


class QuoteMalformed(QuoteError):
    """What came for a quote is cut short, too long, or of a format that is not known here."""

    code = "quote-malformed"


class QuoteOfAnother(QuoteError):
    """The quote is about other report data than was asked for, or about another enclave."""

    code = "quote-of-another"


class ProtocolError(AdytonError):
    """The sealed channel or one of its formats was violated."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """Our own code used a protocol object out of order, or with values that the format cannot carry."""

    code = "local-protocol"
    fault: ClassVar[Fault] = "caller"


class RemoteProtocolError(ProtocolError):
    """Bytes from outside violate the format."""

    code = "remote-protocol"


class TruncatedMessage(RemoteProtocolError):
    """The input ended before its authenticated end."""

    code = "truncated"


class OpenError(ProtocolError):
    """Decryption failed. SECURITY: one class and one message for every cause, so that it is no oracle."""

    code = "open"

    def __init__(self) -> None:
        """Take no argument, so that no caller can tell causes apart."""
        super().__init__("the sealed message could not be opened")


class KeyConfigMismatch(ProtocolError):
    """The request was sealed to a key that the enclave does not hold (any more). It was not executed."""

    code = "key-config-mismatch"
    retry_safe: ClassVar[bool] = True


class ReplayedRequest(ProtocolError):
    """The enclave has already accepted this very encapsulation."""

    code = "replayed-request"


class ReceiptError(ProtocolError):
    """A receipt is malformed, its signature is wrong, or it is about another exchange."""

    code = "receipt"


class TransportError(AdytonError):
    """I/O failed between the parties; the original exception is chained."""

    code = "transport"
    fault: ClassVar[Fault] = "host"


class RelayRefused(TransportError):
    """The host declined to carry the request, so the enclave never saw it.

    Attributes:
        status: HTTP status of the refusal.
        retry_after_s: Seconds to wait, when the host said so.
    """

    code = "relay-refused"
    retry_safe: ClassVar[bool] = True

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None) -> None:
        """Keep the status beside the message."""
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class EndorsementsUnavailable(TransportError):
    """Endorsements could not be had: the source is away, overloaded, or holds none.

    Nothing is known about the platform then, neither good nor bad: no evidence was refused. Asking again later, or
    another source, may help.

    Attributes:
        source: Which source was asked, in words.
        retry_after_s: Seconds to wait, when the source said so.
    """

    code = "endorsements-unavailable"
    fault: ClassVar[Fault] = "operator"
    retry_safe: ClassVar[bool] = True

    def __init__(self, message: str, *, source: str, retry_after_s: float | None = None) -> None:
        """Keep the name of the source beside the message."""
        super().__init__(message)
        self.source = source
        self.retry_after_s = retry_after_s


class EndorsementsNotPublished(EndorsementsUnavailable):
    """The source answers, and has no endorsements for this platform; asking it again will not help."""

    code = "endorsements-not-published"
    fault: ClassVar[Fault] = "vendor"


class EndorsementSourceError(EndorsementsUnavailable):
    """What the source sent are no endorsements of this platform: unreadable, forged, expired, or about another."""

    code = "endorsement-source"
    fault: ClassVar[Fault] = "peer"


class EngineError(AdytonError):
    """The enclave cannot serve this request.

    Attributes:
        status: HTTP status of the sealed answer that reports the error.
        param: The field of the request at fault, when there is one.
    """

    code = "engine"
    fault: ClassVar[Fault] = "enclave"
    retry_safe: ClassVar[bool] = True
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, param: str | None = None) -> None:
        """Keep the name of the field at fault beside the message."""
        super().__init__(message)
        self.param = param


class InvalidRequest(EngineError):
    """A field of the request is missing, of the wrong type or out of range."""

    code = "invalid-request"
    fault: ClassVar[Fault] = "caller"
    status = 400


class UnknownModel(EngineError):
    """No loaded model has this name."""

    code = "model-not-found"
    fault: ClassVar[Fault] = "caller"
    status = 404


class UnsuitableModel(EngineError):
    """The model exists, but the operator does not let it do this: answer, make embeddings, or judge."""

    code = "model-unsuitable"
    fault: ClassVar[Fault] = "caller"
    status = 400


class ContextOverflow(EngineError):
    """Prompt and answer cannot fit into the model's context; found out before any work was done."""

    code = "context-length-exceeded"
    fault: ClassVar[Fault] = "caller"
    status = 400


class QueueFull(EngineError):
    """Too many requests wait already.

    Attributes:
        retry_after_s: Seconds after which a place is likely.
    """

    code = "queue-full"
    fault: ClassVar[Fault] = "operator"
    status = 429

    def __init__(self, message: str, *, retry_after_s: float, param: str | None = None) -> None:
        """Keep the advice beside the message."""
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class OutOfMemory(EngineError):
    """The KV cache or another fixed budget is exhausted."""

    code = "out-of-memory"
    status = 503


class ModelKeyMissing(EngineError):
    """A model is sealed, and its key has not been released to this enclave yet. Nothing is served before."""

    code = "model-key-missing"
    fault: ClassVar[Fault] = "operator"
    status = 503


class Cancelled(EngineError):
    """The caller went away, and the work was stopped."""

    code = "cancelled"
    fault: ClassVar[Fault] = "caller"
    status = 499


class DeadlineExceeded(Cancelled):
    """The time limit passed before the answer was complete, and the work was stopped."""

    code = "deadline-exceeded"
    status = 504


class EngineStopped(EngineError):
    """The engine has failed or is shutting down."""

    code = "engine-stopped"
    status = 503
