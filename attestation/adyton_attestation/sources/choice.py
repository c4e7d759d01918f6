# SPDX-License-Identifier: Apache-2.0
"""Choosing a source in words: ``pcs``, ``pccs=URL``, ``cache``, or the path of a file.

A file holds either one set (``QuoteCollateralV3`` JSON) or a bundle. A bundle needs the carrier named whom its user
expects; there is no default and no way to take just anybody's.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509

from adyton_attestation.certificates import TrustAnchor, der_of, trust_anchor
from adyton_attestation.roots import INTEL_SGX_ROOT_DER
from adyton_attestation.signing_keys import PublicKey
from adyton_attestation.sources.bundle import MAX_BUNDLE_BYTES, Bundle, looks_like_bundle
from adyton_attestation.sources.family import PlatformFamily
from adyton_attestation.sources.fetching import Dial
from adyton_attestation.sources.pcs import (
    INTEL_PCS_NAME,
    STANDARD,
    CertificationService,
    Channel,
    Source,
    pccs_base_url,
)
from adyton_protocol.errors import (
    ConfigError,
    EndorsementError,
    EndorsementsNotPublished,
    EndorsementSourceError,
    EndorsementsUnavailable,
)

PCS: Final = "pcs"
CACHE: Final = "cache"
_PCCS: Final = "pccs="


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """What goes with the choice.

    Attributes:
        dial: How to reach a service.
        channel: Which set to ask a service for.
        carrier: Whose bundle is accepted; None accepts nobody's.
    """

    dial: Dial = field(default_factory=Dial)
    channel: Channel = STANDARD
    carrier: PublicKey | None = None


def choose_source(text: str, options: SourceOptions) -> Source | None:
    """Return the source that a choice names; None for ``cache``.

    Raises:
        ConfigError: It names none.
    """
    if text == CACHE:
        return None
    if text == PCS:
        return CertificationService(options.dial, name=INTEL_PCS_NAME, channel=options.channel)
    if text.startswith(_PCCS):
        url = pccs_base_url(text.removeprefix(_PCCS))
        return CertificationService(
            options.dial, name=f"PCCS {url}", base_url=url, root_crl_url=None, channel=options.channel
        )
    return FileSource(Path(text).expanduser(), options.carrier)


def read_anchor(path: Path | None) -> TrustAnchor:
    """Read the root that endorsements must stand below; None means Intel's.

    Raises:
        ConfigError: The file does not hold exactly one root certificate in PEM.
    """
    if path is None:
        return trust_anchor(INTEL_SGX_ROOT_DER)
    try:
        (root,) = x509.load_pem_x509_certificates(path.read_bytes())
        return trust_anchor(der_of(root))
    except (OSError, ValueError, EndorsementError) as cause:
        raise ConfigError(f"{path} does not hold exactly one root certificate in PEM") from cause


class FileSource:
    """One set, or a bundle, in a file; read anew each time."""

    def __init__(self, path: Path, carrier: PublicKey | None) -> None:
        """Take the path and whose bundle it may be."""
        self._path = path
        self._carrier = carrier
        self.name: Final = f"file {path}"
        self.channel: Final = STANDARD

    def fetch(self, family: PlatformFamily) -> bytes:
        """Return the set of the file, or that of the family in the bundle.

        Raises:
            EndorsementsUnavailable: The file cannot be read, or has none for the family.
            ConfigError: It is a bundle, and of nobody that was named.
        """
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_BUNDLE_BYTES + 1)
        except OSError as cause:
            raise EndorsementsUnavailable(
                f"{self.name} cannot be read: {cause.strerror}", source=self.name
            ) from cause
        if not looks_like_bundle(data):
            return data
        bundle = read_bundle(data, self._carrier, self.name)
        found = bundle.set_of(family)
        if found is None:
            raise EndorsementsNotPublished(
                f"{self.name}: the bundle has nothing for {family.label}", source=self.name
            )
        return found.data


def read_bundle(data: bytes, carrier: PublicKey | None, name: str) -> Bundle:
    """Read a bundle of a carrier whom the caller expects.

    Raises:
        EndorsementSourceError: It is no bundle, was changed on its way, or is somebody else's.
        ConfigError: Nobody is expected.
    """
    try:
        bundle = Bundle.parse(data)
    except EndorsementError as cause:
        raise EndorsementSourceError(f"{name}: {cause}", source=name) from cause
    if carrier is None:
        raise ConfigError(
            f"{name} is a bundle signed by {bundle.carrier.name} ({bundle.carrier.fingerprint}); name the key "
            "whose bundle you expect (--carrier), after comparing fingerprints"
        )
    # SECURITY: anybody can sign a bundle; which key may have is for its reader to say.
    if bundle.carrier != carrier:
        raise EndorsementSourceError(
            f"{name}: signed by {bundle.carrier.name} ({bundle.carrier.fingerprint}), "
            f"expected {carrier.name} ({carrier.fingerprint})",
            source=name,
        )
    return bundle
