# SPDX-License-Identifier: Apache-2.0
"""A client for Intel's Provisioning Certification Service, version 4, and for caches that speak the same (PCCS).

Four documents make a set: TCB info, QE identity and the PCK CRL with their issuer chains, and the root's CRL. Intel
serves the last from where the root certificate says (``certificates.trustedservices.intel.com``), a PCCS as
``/rootcacrl``.
What comes back is put together as ``QuoteCollateralV3`` JSON and handed on; this module judges nothing.

Source: Intel, *Provisioning Certification Service for ECDSA Attestation*, version 4; *PCCS Design Guide*.
"""

import json
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

import httpx

from adyton_attestation.sources.decoding import issuer_chain, revocation_list, signed_document
from adyton_attestation.sources.family import PlatformFamily
from adyton_attestation.sources.fetching import Dial, check_url
from adyton_protocol.errors import ConfigError, EndorsementError, EndorsementSourceError

INTEL_PCS_URL: Final = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL_URL: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
"""The root's revocation list, despite its name; it stands so in the root certificate (CRL distribution point)."""
INTEL_PCS_NAME: Final = "Intel's certification service"

Update: TypeAlias = Literal["standard", "early"]

_CHAIN_OF_TCB_INFO: Final = ("TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain")
"""The second is the name in version 3, which some caching services kept."""
_CHAIN_OF_IDENTITY: Final = ("SGX-Enclave-Identity-Issuer-Chain",)
_CHAIN_OF_CRL: Final = ("SGX-PCK-CRL-Issuer-Chain",)
_MAX_EVALUATION_NUMBER: Final = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """Which of the published sets is wanted.

    Intel publishes each TCB recovery first as ``early``, for those who can update at once, and some months later as
    ``standard``. An evaluation number names one recovery; Intel drops old ones.

    Attributes:
        update: Ignored when there is an evaluation number.
        evaluation_number: tcbEvaluationDataNumber, or None.

    Raises:
        ConfigError: The number is out of range.
    """

    update: Update = "standard"
    evaluation_number: int | None = None

    def __post_init__(self) -> None:
        """Check the range."""
        number = self.evaluation_number
        if number is not None and not 0 < number <= _MAX_EVALUATION_NUMBER:
            raise ConfigError(f"an evaluation number lies between 1 and {_MAX_EVALUATION_NUMBER}")

    @property
    def label(self) -> str:
        """For people and for the cache: ``standard``, ``early`` or ``number-20``."""
        return self.update if self.evaluation_number is None else f"number-{self.evaluation_number}"

    def query(self) -> dict[str, str]:
        """Return the parameters; the two exclude one another."""
        if self.evaluation_number is not None:
            return {"tcbEvaluationDataNumber": str(self.evaluation_number)}
        return {"update": self.update}


STANDARD: Final = Channel()


class Source(Protocol):
    """Somewhere to ask for endorsements."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def channel(self) -> Channel:
        """Which set it asks for."""
        ...

    def fetch(self, family: PlatformFamily) -> bytes:
        """Return attacker-controlled ``QuoteCollateralV3`` JSON.

        Raises:
            EndorsementsUnavailable: It could not be had, and why.
        """
        ...


class CertificationService:
    """Intel's service or a caching service, over HTTP."""

    def __init__(
        self,
        dial: Dial,
        *,
        name: str,
        base_url: str = INTEL_PCS_URL,
        root_crl_url: str | None = INTEL_ROOT_CRL_URL,
        channel: Channel = STANDARD,
    ) -> None:
        """Say where to ask and for what.

        Args:
            dial: How; its patience is for all documents of a set together.
            name: For people.
            base_url: Address of the service, without ``/sgx/certification/v4``.
            root_crl_url: Where the root's list is; None means ``/rootcacrl`` of the service itself.
            channel: Which set to ask for.

        Raises:
            ConfigError: An address is not one that may be asked.
        """
        self._dial = dial
        self.name: Final = name
        self.channel: Final = channel
        self._base = check_url(base_url)
        self._root_crl_url = (
            self._url("sgx", "rootcacrl", {}) if root_crl_url is None else check_url(root_crl_url)
        )

    def fetch(self, family: PlatformFamily) -> bytes:
        """Ask for the four documents of one set.

        Raises:
            EndorsementsUnavailable: One of them could not be had.
        """
        fmspc, asked = family.fmspc.hex().upper(), self.channel.query()
        with self._dial.fetcher(self.name) as fetcher:
            tcb = fetcher.get(
                self._url(family.tee, "tcb", {"fmspc": fmspc, **asked}), what=f"TCB info for FMSPC {fmspc}"
            )
            identity = fetcher.get(self._url(family.tee, "qe/identity", asked), what="QE identity")
            # The revocation lists of PCK certificates are the same for both TEEs, and stand with SGX.
            crl = fetcher.get(
                self._url("sgx", "pckcrl", {"ca": family.ca, "encoding": "der"}),
                what=f"PCK CRL of the {family.ca} CA",
            )
            root = fetcher.get(self._root_crl_url, what="root CRL")
        try:
            tcb_info, tcb_info_signature = signed_document(tcb.body, "tcbInfo")
            qe_identity, qe_identity_signature = signed_document(identity.body, "enclaveIdentity")
            document = {
                "pck_crl_issuer_chain": issuer_chain(crl.headers, *_CHAIN_OF_CRL),
                "root_ca_crl": revocation_list(root.body, "root CRL").hex(),
                "pck_crl": revocation_list(crl.body, "PCK CRL").hex(),
                "tcb_info_issuer_chain": issuer_chain(tcb.headers, *_CHAIN_OF_TCB_INFO),
                "tcb_info": tcb_info,
                "tcb_info_signature": tcb_info_signature,
                "qe_identity_issuer_chain": issuer_chain(identity.headers, *_CHAIN_OF_IDENTITY),
                "qe_identity": qe_identity,
                "qe_identity_signature": qe_identity_signature,
            }
        except EndorsementError as cause:
            raise EndorsementSourceError(f"{self.name}: {cause}", source=self.name) from cause
        return json.dumps(document, indent=1).encode("utf-8")

    def _url(self, tee: str, path: str, query: dict[str, str]) -> httpx.URL:
        url = self._base.copy_with(path=f"{self._base.path.rstrip('/')}/{tee}/certification/v4/{path}")
        return url.copy_merge_params(query) if query else url


def pccs_base_url(url: str) -> str:
    """Return the address of a caching service as its neighbours' configuration files may have it.

    ``sgx_default_qcnl.conf`` writes it with ``/sgx/certification/v4/`` at its end.
    """
    return url.rstrip("/").removesuffix("/sgx/certification/v4")
