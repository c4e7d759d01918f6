# SPDX-License-Identifier: Apache-2.0
"""Reference values in an appraisal: what the policy names, and what releases in force name.

Each *candidate* is one way for an enclave to be accepted: the policy's own lists, or one enclave of one release. The
checks ``enclave-identity``, ``key-separation``, ``configuration`` and ``models`` narrow the candidates down, one after
the other, so that an enclave of one release with the models of another is nobody's. What a release leaves out
(configurations, models, KSS fields) is looked up in the policy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from adyton_attestation.checks import CheckName, Ledger, Refusal
from adyton_attestation.policy import AppraisalPolicy, KeySeparation, SignerIdentity
from adyton_attestation.quote import EnclaveReport
from adyton_attestation.release_memory import ReleaseMark
from adyton_attestation.release_terms import ReleaseTerms
from adyton_attestation.times import format_time
from adyton_protocol.digests import Digest
from adyton_protocol.errors import ReferenceValueError

if TYPE_CHECKING:
    # Only named here: a policy of lists is applied without loading what releases need.
    from adyton_attestation.release_file import ReleaseFile, VerifiedReleases
    from adyton_attestation.release_statement import ReleaseStatement, StatedEnclave
    from adyton_protocol.keyset import ModelIdentity

RELEASE_CHECKS: Final = (CheckName.RELEASE_SIGNATURES, CheckName.RELEASE_LOG, CheckName.REFERENCE_VALUES)
"""The checks that make releases count."""
NO_RELEASES_ASKED: Final = "the policy asks for none: it names its reference values itself"
"""Nothing is relaxed then, so nothing is skipped: the policy's own lists are all that can be matched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way for an enclave to be accepted.

    Attributes:
        release: Whose it is; None for the policy's own lists.
        stated: What that release states of the enclave.
        mr_enclaves: Measurements, 32 bytes each.
        signers: Or signers.
        key_separation: KSS fields.
        configurations: Configuration digests.
        models: Identities by name of model.
    """

    release: "ReleaseStatement | None"
    stated: "StatedEnclave | None"
    mr_enclaves: frozenset[bytes]
    signers: frozenset[SignerIdentity]
    key_separation: KeySeparation
    configurations: frozenset[Digest]
    models: tuple[tuple[str, frozenset[Digest]], ...]

    def is_of(self, report: EnclaveReport) -> bool:
        """Whether it names the enclave of a report, by measurement or by signer, product and security version."""
        return report.mr_enclave in self.mr_enclaves or any(
            report.mr_signer == signer.mr_signer
            and report.isv_prod_id == signer.isv_prod_id
            and report.isv_svn >= signer.min_isv_svn
            for signer in self.signers
        )

    def has_model(self, model: "ModelIdentity") -> bool:
        """Whether it allows a model its identity."""
        return model.identity in dict(self.models).get(model.name, frozenset())


class ReferenceValues:
    """The candidates of one appraisal, fewer after each check that passes."""

    def __init__(self, policy: AppraisalPolicy, releases: "VerifiedReleases | None") -> None:
        """Take the policy's own lists, and every enclave of every release in force."""
        own = Candidate(
            release=None,
            stated=None,
            mr_enclaves=policy.identity.mr_enclaves,
            signers=policy.identity.signers,
            key_separation=policy.identity.key_separation,
            configurations=policy.configurations,
            models=policy.models,
        )
        self._releases = releases
        self._own = own
        self._enclave_known = False
        self._candidates: tuple[Candidate, ...] = (own,)
        if releases is not None:
            self._candidates += tuple(
                _stated(own, statement, enclave)
                for statement in releases.in_force()
                for enclave in statement.enclaves
            )

    def keep(self, fits: Callable[[Candidate], bool]) -> tuple[Candidate, ...]:
        """Keep the candidates that fit and return them; if none does, all stay, so that later checks can speak."""
        found = tuple(candidate for candidate in self._candidates if fits(candidate))
        self._candidates = found or self._candidates
        return found

    def keep_enclave(self, report: EnclaveReport) -> tuple[Candidate, ...]:
        """Keep the candidates that name the enclave of a report, and return them."""
        found = self.keep(lambda candidate: candidate.is_of(report))
        self._enclave_known = bool(found)
        return found

    def any_has(self, model: "ModelIdentity") -> bool:
        """Whether a candidate that is left allows a model its identity."""
        return any(candidate.has_model(model) for candidate in self._candidates)

    @property
    def empty(self) -> bool:
        """Whether nothing names any enclave."""
        return not any(candidate.mr_enclaves or candidate.signers for candidate in self._candidates)

    def releases(self) -> "tuple[ReleaseStatement, ...]":
        """The releases that name the enclave and are left, each once; none where that was not compared."""
        found = {item.release.payload: item.release for item in self._candidates if item.release is not None}
        return tuple(found.values()) if self._enclave_known else ()

    def standing_of(self, report: EnclaveReport) -> str:
        """Say of an enclave that nothing in force names how the releases that do name it stand; empty if none does."""
        if self._releases is None:
            return ""
        known = [
            f"{statement}, which is {self._releases.standing(statement)}"
            for statement in self._releases.statements
            if any(_stated(self._own, statement, enclave).is_of(report) for enclave in statement.enclaves)
        ]
        return f", of {' and '.join(known)}" if known else ""


def name_sources(
    candidates: Sequence[Candidate], states: "Callable[[StatedEnclave], bool]" = lambda _: True
) -> str:
    """Say where a value was found.

    Args:
        candidates: Those that have it.
        states: Whether a release's enclave has it of its own, and not from the policy.
    """
    if any(item.stated is None or not states(item.stated) for item in candidates):
        return "on the allow-list"
    return f"of {' and '.join(dict.fromkeys(str(item.release) for item in candidates))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseAppraisal:
    """The checks that make releases count.

    Attributes:
        terms: The policy's section, if it has one.
        data: The release file; attacker-controlled; None if there is none.
        mark: What was seen of the log.
        now_s: Unix time.
    """

    terms: ReleaseTerms | None
    data: bytes | None
    mark: ReleaseMark | None
    now_s: int

    def run(self, ledger: Ledger) -> "VerifiedReleases | None":
        """Make the checks; returns what they established, None without releases or after a failure."""
        terms = self.terms
        if terms is None:
            for check in RELEASE_CHECKS:
                ledger.run(check, lambda: (NO_RELEASES_ASKED, None))
            return None
        file = ledger.run(CheckName.RELEASE_SIGNATURES, lambda: self._signatures(terms))
        if file is None:
            ledger.skip("needs a signed release file", CheckName.RELEASE_LOG, CheckName.REFERENCE_VALUES)
            return None
        verified = ledger.run(CheckName.RELEASE_LOG, lambda: self._log(file, terms))
        if verified is None:
            ledger.skip("needs releases that are in the log", CheckName.REFERENCE_VALUES)
            return None
        return ledger.run(CheckName.REFERENCE_VALUES, lambda: _in_force(verified))

    def _signatures(self, terms: ReleaseTerms) -> "tuple[str, ReleaseFile]":
        from adyton_attestation.release_file import check_signatures, parse_release_file  # noqa: PLC0415

        if self.data is None:
            raise ReferenceValueError("there is no release file, and the policy demands one")
        file = parse_release_file(self.data)
        check_signatures(file, terms)
        names = ", ".join(str(item.signed.statement) for item in file.releases)
        return f"{names} of {terms.product}: at least {terms.threshold} of the policy's signers signed", file

    def _log(self, file: "ReleaseFile", terms: ReleaseTerms) -> "tuple[str, VerifiedReleases]":
        from adyton_attestation.release_file import check_history, check_log  # noqa: PLC0415

        check_log(file, terms, self.now_s)
        verified = check_history(file, terms, self.mark or ReleaseMark(origin=terms.origin), self.now_s)
        size, time = file.checkpoint.size, format_time(file.checkpoint.time_s)
        return f"{terms.origin} has them, the newest of its {size} entries among them, as of {time}", verified


def _in_force(verified: "VerifiedReleases") -> "tuple[str, VerifiedReleases]":
    if not verified.in_force():
        raise Refusal("a release in force", verified.explain())
    return verified.explain(), verified


def _stated(own: Candidate, statement: "ReleaseStatement", enclave: "StatedEnclave") -> Candidate:
    signer, kss = enclave.signer, enclave.key_separation
    return Candidate(
        release=statement,
        stated=enclave,
        mr_enclaves=frozenset() if enclave.mr_enclave is None else frozenset({enclave.mr_enclave}),
        signers=frozenset()
        if signer is None
        else frozenset(
            {
                SignerIdentity(
                    mr_signer=signer.mr_signer,
                    isv_prod_id=signer.isv_prod_id,
                    min_isv_svn=signer.min_isv_svn,
                )
            }
        ),
        key_separation=own.key_separation
        if kss is None
        else KeySeparation(
            config_id=kss.config_id,
            config_svn=kss.config_svn,
            isv_ext_prod_id=kss.isv_ext_prod_id,
            isv_family_id=kss.isv_family_id,
        ),
        configurations=own.configurations if enclave.configurations is None else enclave.configurations,
        models=own.models if enclave.models is None else enclave.models,
    )
