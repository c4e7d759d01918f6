# SPDX-License-Identifier: Apache-2.0
"""The section ``[releases]`` of a policy that is begun from a release file.

Keys of signers may come from the file itself, which is *trust on first use*: whoever made the file is taken at his word
for whose keys count. The key of the log's keeper cannot, because a checkpoint only names it; it has to be brought.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adyton_attestation.release_file import ReleaseFile, VerifiedReleases, verify_release_file
from adyton_attestation.release_terms import ReleaseTerms
from adyton_attestation.signing_keys import PublicKey
from adyton_protocol.errors import ReferenceValueError


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunReleases:
    """What a release file says to somebody who is about to believe it.

    Attributes:
        terms: For the policy; the file was verified by them.
        verified: How its statements stand.
        copied: Whether the signers' keys are the file's own word.
    """

    terms: ReleaseTerms
    verified: VerifiedReleases
    copied: bool

    def left_out(self) -> tuple[str, ...]:
        """Members of a policy that some enclave in force leaves to the policy, by name."""
        enclaves = [enclave for item in self.verified.in_force() for enclave in item.enclaves]
        stated = {
            "configurations": all(enclave.configurations is not None for enclave in enclaves),
            "models": all(enclave.models is not None for enclave in enclaves),
        }
        return tuple(name for name, everywhere in stated.items() if not everywhere)

    def words(self) -> Iterator[str]:
        """Say what was found, a line each."""
        yield f"releases of {self.terms.product}: {self.verified.explain()}"
        yield from (f"signer {key.name}, fingerprint {key.fingerprint}" for key in self.terms.signers)
        yield from (f"log {key.name}, fingerprint {key.fingerprint}" for key in self.terms.logs)
        for name in self.left_out():
            yield f"the releases leave {name} to you: name them in this policy"


def begin_releases(
    file: ReleaseFile,
    *,
    signers: Sequence[PublicKey],
    threshold: int | None,
    logs: Sequence[PublicKey],
    now_s: int,
) -> BegunReleases:
    """Make terms from a release file and verify the file by them.

    The enclaves that it states are not copied: the policy would go on accepting them after they are withdrawn.

    Args:
        file: Attacker-controlled.
        signers: Keys that were compared with their owners; empty copies those that signed every statement.
        threshold: How many must have signed; None for all.
        logs: Keys of the log's keeper.
        now_s: Unix time.

    Raises:
        ReferenceValueError: The file does not hold under these terms, or nothing in it is in force.
        ConfigError: The keys contradict each other.
    """
    if not file.releases:
        raise ReferenceValueError("the release file has no statement")
    # SECURITY: only whoever signed all of it is taken over; a late statement adds no voice to the earlier ones.
    believed = tuple(signers) or _signers_of_all(file)
    if not believed:
        raise ReferenceValueError("nobody signed every statement of the release file; name its signers")
    newest = file.releases[-1].signed.statement
    terms = ReleaseTerms(
        product=newest.product,
        signers=believed,
        threshold=len(believed) if threshold is None else threshold,
        logs=tuple(logs),
    )
    verified = verify_release_file(file, terms, now_s=now_s)
    if not verified.in_force():
        raise ReferenceValueError(f"nothing in the release file is in force: {verified.explain()}")
    return BegunReleases(
        terms=ReleaseTerms(
            product=terms.product,
            signers=terms.signers,
            threshold=terms.threshold,
            logs=terms.logs,
            # SECURITY: a client without memory begins at today's floor, not at the first release.
            minimum_release=verified.floor,
        ),
        verified=verified,
        copied=not signers,
    )


def _signers_of_all(file: ReleaseFile) -> tuple[PublicKey, ...]:
    first, *others = ({key.raw: key for key, _ in item.signed.signatures} for item in reversed(file.releases))
    return tuple(
        sorted(
            (key for raw, key in first.items() if all(raw in item for item in others)),
            key=lambda key: (key.name, key.raw),
        )
    )
