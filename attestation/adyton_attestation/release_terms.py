# SPDX-License-Identifier: Apache-2.0
"""Whom a relying party believes about releases: the section ``[releases]`` of a policy."""

from dataclasses import dataclass
from typing import Final

from adyton_attestation.signing_keys import PublicKey
from adyton_protocol.errors import ConfigError

DAY_S: Final = 86_400
DEFAULT_AGE_S: Final = 31 * DAY_S
MAX_AGE_S: Final = 366 * DAY_S
MAX_RELEASE: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseTerms:
    """Whom a relying party believes about releases, and for how long.

    Attributes:
        product: The only product.
        signers: Keys of the people who sign releases.
        threshold: How many of them must have signed.
        logs: Keys of the log's keeper; any of them signs. They share one name, which is the log's.
        max_age_s: Greatest age of the checkpoint, in seconds.
        minimum_release: The lowest release, whatever statements say.

    Raises:
        ConfigError: They contradict themselves.
    """

    product: str
    signers: tuple[PublicKey, ...]
    threshold: int
    logs: tuple[PublicKey, ...]
    max_age_s: int = DEFAULT_AGE_S
    minimum_release: int = 1

    def __post_init__(self) -> None:
        """Refuse terms that would not mean what they say."""
        if not self.signers or not self.logs:
            raise ConfigError("releases: name at least one signer and one key of the log")
        keys = [key.raw for key in (*self.signers, *self.logs)]
        # SECURITY: one key under two names would count twice; a log key that signs releases would be one thief's find.
        if len(set(keys)) != len(keys):
            raise ConfigError("releases: a key is listed twice")
        if not 1 <= self.threshold <= len(self.signers):
            raise ConfigError("releases: the threshold lies between one and the number of signers")
        if len({key.name for key in self.logs}) != 1:
            raise ConfigError("releases: the log's keys must share one name, which is the log's")
        if not 0 < self.max_age_s <= MAX_AGE_S:
            raise ConfigError(f"releases: the age of the checkpoint lies between 1 and {MAX_AGE_S} seconds")
        if self.minimum_release < 1:
            raise ConfigError("releases: releases are counted from 1")

    @property
    def origin(self) -> str:
        """Name of the log."""
        return self.logs[0].name
