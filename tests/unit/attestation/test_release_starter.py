# SPDX-License-Identifier: Apache-2.0
"""Beginning a policy from a release file: what it may say of itself, and what has to be brought."""

import pytest
from releases import ALICE, BOB, CAROL, DAY_S, KEEPER, NEXT_KEEPER, START_S, STRANGER, Keeper, keeper, reread

from adyton_attestation.private_keys import PrivateKey
from adyton_attestation.release_starter import BegunReleases, begin_releases
from adyton_protocol.errors import ConfigError, ReferenceValueError

NOW_S = START_S + 10 * DAY_S


def begin(
    kept: Keeper,
    *signers: PrivateKey,
    log: PrivateKey = KEEPER,
    threshold: int | None = None,
    now_s: int = NOW_S,
) -> BegunReleases:
    """Begin from what this keeper exports."""
    return begin_releases(
        reread(kept.export(NOW_S)),
        signers=[key.public for key in signers],
        threshold=threshold,
        logs=[log.public],
        now_s=now_s,
    )


def test_terms_say_what_the_file_says() -> None:
    """Product, signers, all of them needed, the log, and today's floor; the signers are the file's own word."""
    begun = begin(keeper(1, 2, 3))
    terms = begun.terms
    assert (terms.product, terms.signers, terms.threshold) == ("adyton", (ALICE.public, BOB.public), 2)
    assert (terms.logs, terms.minimum_release) == ((KEEPER.public,), 2)
    assert begun.copied
    words = "\n".join(begun.words())
    for key in (ALICE, BOB, KEEPER):
        assert key.public.fingerprint in words
    assert "release 3 (0.3.0) is in force" in words


def test_signers_that_were_compared_are_believed_and_no_others() -> None:
    """Those named are the terms; a signer who did not sign, or whom nobody named, does not count."""
    begun = begin(keeper(1, 2), ALICE, BOB)
    assert (begun.copied, begun.terms.signers) == (False, (ALICE.public, BOB.public))
    assert begin(keeper(1, 2), ALICE, CAROL, threshold=1).terms.threshold == 1
    for strangers in ((ALICE, CAROL), (STRANGER,)):
        with pytest.raises(ReferenceValueError, match="policy's signers"):
            begin(keeper(1, 2), *strangers)


def test_only_whoever_signed_every_statement_is_copied() -> None:
    """A voice that joins late is not taken over; without a common one there is nothing to begin from."""
    kept = Keeper().with_release(1, ALICE, BOB).with_release(2, BOB, STRANGER)
    assert begin(kept).terms.signers == (BOB.public,)
    with pytest.raises(ReferenceValueError, match="nobody signed every statement"):
        begin(Keeper().with_release(1, ALICE).with_release(2, BOB))


def test_the_log_has_to_be_the_keepers() -> None:
    """A key of another keeper, a checkpoint of long ago, a signer's key for the log: nothing is begun."""
    with pytest.raises(ReferenceValueError, match="checkpoint is not signed"):
        begin(keeper(1), log=NEXT_KEEPER)
    with pytest.raises(ReferenceValueError, match="older than"):
        begin(keeper(1), now_s=NOW_S + 40 * DAY_S)
    with pytest.raises(ConfigError, match="listed twice"):
        begin(keeper(1), ALICE, BOB, log=ALICE)


def test_releases_of_which_none_holds_begin_nothing() -> None:
    """A statement that only withdraws leaves no release in force, and so nothing to accept."""
    kept = keeper(1).with_release(
        2, not_before_s=NOW_S - 200 * DAY_S, not_after_s=NOW_S - DAY_S, minimum_release=2
    )
    with pytest.raises(ReferenceValueError, match="nothing in the release file is in force"):
        begin(kept)


def test_what_releases_leave_out_is_said() -> None:
    """Configurations and models that no statement names are the policy's to name."""
    assert begin(keeper(1)).left_out() == ("configurations", "models")
    digest = f"sha256:{'5f' * 32}"
    stated = [{"mr_enclave": "01" * 32, "configurations": [digest], "models": {"abacus": [digest]}}]
    assert begin(Keeper().with_release(1, enclaves=stated)).left_out() == ()
