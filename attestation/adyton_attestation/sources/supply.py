# SPDX-License-Identifier: Apache-2.0
"""One source behind one cache: what a relying party, a host or a command line asks for endorsements.

1. What the cache got less than a day ago, and what still holds, is handed out without asking anybody.
2. Otherwise the source is asked. What it gives is vetted, must hold now, and must not be behind what is kept; then it
   replaces that.
3. When the source is away or at fault, what is kept is handed out for as long as all of it holds, and the answer says
   so in ``notice``. When nothing that holds is kept, that is an error, and says nothing about the platform.

``nextUpdate`` bounds what is handed out here; the age cap of a policy, which is shorter, is the appraisal's business.
"""

from dataclasses import dataclass
from typing import Final

from adyton_attestation.certificates import TrustAnchor
from adyton_attestation.sources.cache import EndorsementCache, Kept
from adyton_attestation.sources.family import PlatformFamily
from adyton_attestation.sources.pcs import Source
from adyton_attestation.sources.vetting import Span, VettedSet, vet
from adyton_attestation.times import format_time
from adyton_protocol.errors import (
    EndorsementError,
    EndorsementsNotPublished,
    EndorsementSourceError,
    EndorsementsUnavailable,
)

REFETCH_AFTER_S: Final = 86_400
"""How long the cache answers by itself. A revocation should count within days, and a service not be asked in vain."""

CACHE_NAME: Final = "the local cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplied:
    """Endorsements, ready to be appraised with.

    Attributes:
        kept: The set and where it came from.
        fresh: Whether the source gave it just now.
        notice: Why it is not the newest there may be, or None. For people.
    """

    kept: Kept
    fresh: bool
    notice: str | None = None

    @property
    def data(self) -> bytes:
        """``QuoteCollateralV3`` JSON."""
        return self.kept.vetted.data

    @property
    def origin(self) -> str:
        """Where it came from and when, in words."""
        return f"{self.kept.source}, {'now' if self.fresh else format_time(self.kept.fetched_s)}"


class EndorsementSupply:
    """Asks a source, keeps what it gives, and lives from what is kept while the source is away."""

    def __init__(
        self,
        source: Source | None,
        anchor: TrustAnchor,
        cache: EndorsementCache | None = None,
        *,
        refetch_after_s: int = REFETCH_AFTER_S,
    ) -> None:
        """Put the two together.

        Args:
            source: Whom to ask; None lives from the cache alone.
            anchor: The root below which endorsements must stand.
            cache: Where to keep them; None keeps nothing.
            refetch_after_s: How old a kept set may be that is handed out without asking.
        """
        self._source = source
        self._anchor = anchor
        self._cache = cache
        self._refetch_after_s = refetch_after_s

    def for_quote(self, quote: bytes, now_s: int) -> Supplied:
        """Get what is needed to appraise an attacker-controlled quote.

        Raises:
            MalformedEvidence: It is no quote.
            EndorsementError: It does not say what it needs.
            EndorsementsUnavailable: That could not be had.
        """
        return self.obtain(PlatformFamily.of_quote(quote), now_s)

    def obtain(self, family: PlatformFamily, now_s: int) -> Supplied:
        """Get the endorsements of one family, holding now.

        Raises:
            EndorsementsUnavailable: They could not be had.
            ConfigError: The cache cannot be written.
        """
        kept = None if self._cache is None else self._cache.load(family)
        usable = kept if kept is not None and kept.vetted.holds_at(now_s) else None
        if self._source is None:
            return _only_kept(kept, usable, family)
        channel = self._source.channel.label
        same = usable is not None and usable.channel == channel
        if usable is not None and same and self._young(usable, self._source, now_s):
            return Supplied(kept=usable, fresh=False)
        try:
            vetted = self._ask(self._source, family, now_s)
        except EndorsementsUnavailable as error:
            if usable is None:
                raise _without(error, kept) from error
            return Supplied(kept=usable, fresh=False, notice=_notice(str(error), usable))
        if usable is not None and same and vetted.older_than(usable.vetted):
            why = f"{self._source.name}: serves older endorsements than it did before"
            return Supplied(kept=usable, fresh=False, notice=_notice(why, usable))
        fresh = Kept(vetted=vetted, source=self._source.name, channel=channel, fetched_s=now_s)
        if self._cache is not None:
            self._cache.store(fresh)
        return Supplied(kept=fresh, fresh=True)

    def _young(self, kept: Kept, source: Source, now_s: int) -> bool:
        return kept.source == source.name and 0 <= now_s - kept.fetched_s < self._refetch_after_s

    def _ask(self, source: Source, family: PlatformFamily, now_s: int) -> VettedSet:
        data = source.fetch(family)
        try:
            vetted = vet(data, self._anchor, family)
        except EndorsementError as cause:
            raise EndorsementSourceError(f"{source.name}: {cause}", source=source.name) from cause
        span = vetted.not_holding_at(now_s)
        if span is not None:
            raise EndorsementSourceError(
                f"{source.name}: serves endorsements that do not hold at {format_time(now_s)}: {_span(span)}",
                source=source.name,
            )
        return vetted


def _only_kept(kept: Kept | None, usable: Kept | None, family: PlatformFamily) -> Supplied:
    if usable is not None:
        return Supplied(kept=usable, fresh=False)
    missing = EndorsementsNotPublished(
        f"{CACHE_NAME} holds nothing for {family.label}; import a bundle, or fetch it", source=CACHE_NAME
    )
    raise missing if kept is None else _without(EndorsementsUnavailable(CACHE_NAME, source=CACHE_NAME), kept)


def _without(error: EndorsementsUnavailable, kept: Kept | None) -> EndorsementsUnavailable:
    """Say, beside what went wrong, that there is nothing to live from."""
    if kept is None:
        return error
    text = f"{error}; those that are kept have run out: {_span(kept.vetted.first_to_expire)}"
    return type(error)(text, source=error.source, retry_after_s=error.retry_after_s)


def _span(span: Span) -> str:
    return f"{span.name} is from {format_time(span.first_s)} to {format_time(span.last_s)}"


def _notice(why: str, kept: Kept) -> str:
    until = format_time(kept.vetted.first_to_expire.last_s)
    return f"{why}; living from what {kept.source} gave at {format_time(kept.fetched_s)}, which holds until {until}"
