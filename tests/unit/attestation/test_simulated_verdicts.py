# SPDX-License-Identifier: Apache-2.0
"""Each check refuses what it is there for, under its own name and error; genuine evidence passes all of them."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from evidence_recipes import DAY_S, endorsement_fields, report_fields
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton_attestation.certificates import trust_anchor
from adyton_attestation.checks import ERRORS, CheckName, checks_of, failed_check
from adyton_attestation.endorsements import parse_endorsements
from adyton_attestation.marks import HighWaterMarks
from adyton_attestation.policy import (
    AllowedAdvisory,
    AppraisalPolicy,
    Identity,
    Relaxation,
    SignerIdentity,
    StatusException,
    TcbPolicy,
)
from adyton_attestation.roots import INTEL_SGX_ROOT_DER
from adyton_attestation.simulation import SimulatedVerifier
from adyton_attestation.simulation.collateral import EndorsementSpec, build_endorsements
from adyton_attestation.simulation.pki import PCK_NAME, create_pki, issue, sgx_extension
from adyton_attestation.simulation.quoting import (
    EnclaveReportSpec,
    TdReportSpec,
    build_sgx_quote,
    build_tdx_quote,
)
from adyton_attestation.verifier import Verifier
from adyton_protocol.errors import (
    AppraisalError,
    AttestationError,
    ConfigError,
    EndorsementError,
    LocalProtocolError,
)
from adyton_protocol.hpke import KemPrivateKey
from adyton_protocol.key_config import KeyConfig
from adyton_protocol.keyset import KeysetExtension, ModelIdentity, PublicKeyEntry, TlsKeyEntry
from adyton_protocol.suite import Kem

pytestmark = [
    pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning"),
    pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning"),
]

CASES = json.loads((Path(__file__).parents[2] / "vectors" / "attestation_verdicts.json").read_text())[
    "vectors"
]


def refused(error: AttestationError, check: CheckName, *, alone: bool = True) -> None:
    """Hold that an error came from one check, in its class, with every verdict attached."""
    assert failed_check(error) == check.value
    assert type(error) is ERRORS.get(check, AppraisalError)
    checks = checks_of(error)
    assert [item.name for item in checks] == [name.value for name in CheckName]
    assert [item.number for item in checks] == list(range(1, len(CheckName) + 1))
    failed = [item.name for item in checks if item.verdict == "fail"]
    assert failed[0] == check.value
    if alone:
        assert failed == [check.value]


def test_genuine_evidence_passes_every_check(lab: Any) -> None:
    """Nothing is skipped and nothing fails when evidence, endorsements and policy fit together."""
    result = lab.appraise()
    assert [item.verdict for item in result.checks] == ["pass"] * len(CheckName)
    assert result.tee_type == "simulated"
    assert result.policy_digest == lab.policy().digest()
    assert result.keyset == lab.keyset
    assert result.appraised_at_s == lab.now_s
    assert result.platform is not None
    assert result.platform.custodian == "us"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_verdict_vectors(lab: Any, case: dict[str, Any]) -> None:
    """Each vector bends one thing and records the check that must notice, or that none may."""
    endorsements = endorsement_fields(case.get("endorsements", {}), lab.now_s)
    report = report_fields(case.get("quote", {}))
    tcb = dict(case.get("tcb", {}))
    if "statuses" in tcb:
        tcb["statuses"] = frozenset(tcb["statuses"])
    if "advisories" in tcb:
        tcb["advisories"] = tuple(
            AllowedAdvisory(advisory_id=name, reason="vector", expires_s=lab.now_s + expires_in_s)
            for name, expires_in_s in tcb["advisories"].items()
        )
    if "exceptions" in tcb:
        tcb["exceptions"] = tuple(
            StatusException(
                status=status,
                reason="vector",
                expires_s=lab.now_s + item["for_s"],
                grace_s=item.get("grace_s", 0),
            )
            for status, item in tcb["exceptions"].items()
        )
    arguments = {
        "report": lab.report(lab.quote(**report)),
        "endorsements": lab.endorsements(**endorsements),
        "policy": lab.policy(tcb=TcbPolicy(**tcb)),
        "marks": lab.marks(**case.get("marks", {})),
        "now_s": lab.now_s + int(case.get("now_days", 0) * DAY_S),
    }
    if "accepted" in case:
        result = lab.appraise(**arguments)
        assert result.claims.status == case["accepted"]["tcb_status"]
        return
    error = lab.refusal(**arguments)
    assert error.code == case["rejected"]["code"]
    refused(error, CheckName(case["rejected"]["check"]), alone=case["rejected"].get("alone", True))


def test_every_check_has_a_test_that_only_it_fails() -> None:
    """Deleting a check makes a test fail: each is named by a vector or by a test in this directory."""
    named = {case["rejected"]["check"] for case in CASES if "rejected" in case}
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for name in CheckName:
        assert name.value in named or f"CheckName.{name.name}" in sources, name


# --- What is bound: every edit of keyset, challenge, measurement and policy has its own code -----------


def test_evidence_of_the_other_kind_is_refused(lab: Any) -> None:
    """A report that calls itself real is refused by the simulated verifier, whatever its root."""
    refused(lab.refusal(lab.report(tee_type="sgx")), CheckName.EVIDENCE_TYPE)


def test_an_unparsable_quote_is_refused_and_nothing_else_is_claimed(lab: Any) -> None:
    """Without a quote every later check is skipped, not passed."""
    error = lab.refusal(lab.report(lab.quote()[:-1]))
    refused(error, CheckName.QUOTE_FORMAT)
    assert {item.verdict for item in checks_of(error)[2:]} == {"skip"}


def test_a_tdx_quote_is_no_sgx_evidence(lab: Any) -> None:
    """A perfectly good trust domain does not stand in for an enclave."""
    report = TdReportSpec(mr_td=bytes(48), report_data=lab.report().report_data())
    quote = build_tdx_quote(lab.pki, report)
    refused(lab.refusal(lab.report(quote), lab.endorsements(tee="tdx")), CheckName.QUOTE_FORMAT)


def test_zero_padding_is_accepted_and_other_bytes_are_not(lab: Any) -> None:
    """Quotes come in padded buffers; anything else after them would be a second encoding of the same quote."""
    quote = lab.quote()
    lab.appraise(lab.report(quote + bytes(100)))
    refused(lab.refusal(lab.report(quote + bytes(99) + b"\x01")), CheckName.QUOTE_LENGTH)


def test_an_answer_to_another_challenge_is_stale(lab: Any) -> None:
    """A replayed report, consistent in itself, is refused for its challenge, and its binding does not hold either."""
    error = lab.refusal(challenge="00" * 32)
    refused(error, CheckName.CHALLENGE, alone=False)
    assert error.code == "freshness"
    assert {item.name for item in checks_of(error) if item.verdict == "fail"} == {"challenge", "key-binding"}


def test_a_report_without_a_challenge_is_stale(lab: Any) -> None:
    """The form that proves no freshness is refused."""
    refused(lab.refusal(lab.report(nonce=None)), CheckName.CHALLENGE)


def test_a_report_that_only_states_our_challenge_is_refused(lab: Any) -> None:
    """The challenge must be in the quote; stating it beside an old quote is not enough."""
    old = dataclasses.replace(lab, challenge="77" * 32)
    refused(lab.refusal(lab.report(old.quote())), CheckName.KEY_BINDING)


def edited_keys(lab: Any) -> dict[str, dict[str, Any]]:
    """Return edits of the keyset outside its extension."""
    (receipts,), (sealing,) = lab.keyset.receipt_signing_keys, lab.keyset.e2ee_public_keys
    other = KeyConfig.of(1, KemPrivateKey.generate(Kem.X25519))
    return {
        "subject": {"subject": "laboratorY"},
        "not_after": {"not_after": lab.keyset.not_after + 1},
        "receipt key": {"receipt_signing_keys": (PublicKeyEntry.ed25519("receipts", bytes(32)),)},
        "receipt key id": {"receipt_signing_keys": (dataclasses.replace(receipts, key_id="receiptz"),)},
        "sealing key": {"e2ee_public_keys": (PublicKeyEntry.ohttp("sealing", (other,)),)},
        "sealing key id": {"e2ee_public_keys": (dataclasses.replace(sealing, key_id="sealinh"),)},
        "TLS key": {"tls_public_keys": (TlsKeyEntry(spki_sha256="00" * 32),)},
    }


@pytest.mark.parametrize(
    "edit",
    ["subject", "not_after", "receipt key", "receipt key id", "sealing key", "sealing key id", "TLS key"],
)
def test_every_edit_of_the_keyset_breaks_the_binding(lab: Any, edit: str) -> None:
    """Whatever of the keyset is exchanged, the quote does not speak about it."""
    keyset = lab.with_keyset(**edited_keys(lab)[edit])
    refused(lab.refusal(lab.report(keyset=keyset)), CheckName.KEY_BINDING)


@pytest.mark.parametrize(
    ("member", "value", "check"),
    [
        ("epoch", 4, None),
        ("previous_keyset_digest", "sha256:" + "00" * 32, None),
        ("configuration_digest", "sha256:" + "c1" * 32, CheckName.CONFIGURATION),
        ("models", (ModelIdentity(name="abacus", identity="sha256:" + "ac" * 32),), CheckName.MODELS),
        ("models", (), CheckName.MODELS),
    ],
)
def test_every_edit_of_the_extension_is_noticed(
    lab: Any, member: str, value: Any, check: CheckName | None
) -> None:
    """An edit breaks the binding; done by the enclave itself, it meets the policy's reference values."""
    names = [item.name for item in dataclasses.fields(KeysetExtension)]
    members = {name: getattr(lab.keyset.extension, name) for name in names}
    edited = dataclasses.replace(
        lab, keyset=lab.with_keyset(extension=KeysetExtension(**members | {member: value}))
    )
    error = lab.refusal(lab.report(keyset=edited.keyset))
    refused(error, CheckName.KEY_BINDING, alone=check is None)
    if check is None:
        edited.appraise()
    else:
        refused(edited.refusal(), check)


def test_a_model_that_the_policy_does_not_name_is_refused(lab: Any) -> None:
    """One listed model does not excuse an unlisted one beside it."""
    refused(lab.refusal(policy=lab.policy(models=())), CheckName.MODELS)


@pytest.mark.parametrize("bit", range(0, 256, 17))
def test_every_other_measurement_is_refused(lab: Any, bit: int) -> None:
    """One bit of MRENCLAVE makes another enclave."""
    changed = int.from_bytes(bytes(range(32)), "big") ^ (1 << bit)
    error = lab.refusal(lab.report(lab.quote(mr_enclave=changed.to_bytes(32, "big"))))
    refused(error, CheckName.ENCLAVE_IDENTITY)


def test_keys_end_on_the_second(lab: Any) -> None:
    """Keys hold up to their last second and not on it."""
    lab.appraise(now_s=lab.keyset.not_after - 1)
    refused(lab.refusal(now_s=lab.keyset.not_after), CheckName.KEYS_CURRENT)


def test_keys_that_outlive_the_policy_are_refused(lab: Any) -> None:
    """A host that sets the enclave's clock ahead does not get long-lived keys out of it."""
    for life_s, accepted in ((86_400, True), (86_401, False)):
        dated = dataclasses.replace(lab, keyset=lab.with_keyset(not_after=lab.now_s + life_s))
        if accepted:
            dated.appraise()
        else:
            refused(dated.refusal(), CheckName.KEYS_CURRENT)


def test_a_signer_is_accepted_with_product_and_version_only(lab: Any) -> None:
    """MRSIGNER needs the exact product and at least the security version."""
    signer = SignerIdentity(mr_signer=b"\x51" * 32, isv_prod_id=7, min_isv_svn=3)
    policy = lab.policy(identity=Identity(signers=frozenset({signer})))

    def report(**changes: Any) -> Any:
        return lab.report(lab.quote(**{"mr_signer": b"\x51" * 32, "isv_prod_id": 7, "isv_svn": 3} | changes))

    lab.appraise(report(), policy=policy)
    lab.appraise(report(isv_svn=4), policy=policy)
    for change in ({"isv_svn": 2}, {"isv_prod_id": 8}, {"mr_signer": b"\x52" * 32}):
        refused(lab.refusal(report(**change), policy=policy), CheckName.ENCLAVE_IDENTITY)


def test_an_empty_policy_accepts_nothing(lab: Any) -> None:
    """A policy that names nothing refuses identity, platform, configuration and models."""
    error = lab.refusal(policy=AppraisalPolicy(name="empty"))
    failed = {item.name for item in checks_of(error) if item.verdict == "fail"}
    assert failed == {"platform", "enclave-identity", "configuration", "models"}


def test_a_relaxation_is_announced_and_ends(lab: Any) -> None:
    """A relaxed check is skipped with its reason, and is back at its expiry."""
    until = Relaxation(check=CheckName.PLATFORM, reason="bench not enrolled yet", expires_s=lab.now_s + 10)
    policy = lab.policy(platforms=(), relaxations=(until,))
    result = lab.appraise(policy=policy, now_s=lab.now_s + 9)
    (check,) = [item for item in result.checks if item.name == CheckName.PLATFORM]
    assert check.verdict == "skip"
    assert "bench not enrolled yet" in check.detail
    refused(lab.refusal(policy=policy, now_s=lab.now_s + 10), CheckName.PLATFORM)


_GENUINE: list[tuple[bytes, dict[str, str]]] = []


@given(data=st.data())
@settings(max_examples=60)
def test_hostile_evidence_ends_in_a_typed_refusal(lab: Any, data: st.DataObject) -> None:
    """Whatever is mangled in quote and collateral at once, nothing but an AttestationError comes out."""
    if not _GENUINE:
        _GENUINE.append((lab.quote(), json.loads(lab.collateral())))
    quote, document = bytearray(_GENUINE[0][0]), dict(_GENUINE[0][1])
    for _ in range(data.draw(st.integers(1, 4))):
        quote[data.draw(st.integers(0, len(quote) - 1))] = data.draw(st.integers(0, 255))
    member = data.draw(st.sampled_from(sorted(document)))
    position = data.draw(st.integers(0, len(document[member]) - 1))
    digit = data.draw(st.sampled_from("0123456789abcdef"))
    document[member] = document[member][:position] + digit + document[member][position + 1 :]
    with contextlib.suppress(AttestationError):
        lab.appraise(lab.report(bytes(quote)), parse_endorsements(json.dumps(document).encode()))


def test_a_challenge_that_was_never_sent_is_the_callers_error(lab: Any) -> None:
    """A malformed challenge is a mistake of the relying party, not a verdict about the evidence."""
    with pytest.raises(LocalProtocolError):
        lab.appraise(challenge="nonce")


# --- Roles below the root --------------------------------------------------------------------------------


def signed_by(lab: Any, authority: Any, chain: str) -> Any:
    """Return collateral whose TCB info and QE identity somebody else signed."""
    spec = EndorsementSpec(issued_s=lab.now_s - 3600)
    return parse_endorsements(build_endorsements(lab.pki, spec, tcb_signer=(authority, chain)))


def test_a_platform_key_cannot_sign_tcb_info(lab: Any) -> None:
    """Whoever extracts one platform's key must not be able to declare that platform up to date."""
    endorsements = signed_by(lab, lab.pki.pck, lab.pki.pck_chain_pem())
    refused(lab.refusal(endorsements=endorsements), CheckName.SIGNING_CHAINS, alone=False)


@pytest.mark.parametrize("role", ["pck_ca", "root", "ca_named_so", "platform_named_so", "other_name"])
def test_only_a_tcb_signing_certificate_signs_tcb_info(lab: Any, role: str) -> None:
    """Neither a CA, nor the root, nor a certificate of another name or with a platform's extension will do."""
    name = "Simulated SGX TCB Signing"
    root = lab.pki.root
    authority = {
        "pck_ca": lambda: lab.pki.pck_ca,
        "root": lambda: root,
        "ca_named_so": lambda: issue(name, issuer=root, now_s=lab.now_s, ca=True),
        "platform_named_so": lambda: issue(
            name, issuer=root, now_s=lab.now_s, ca=False, sgx_extension=sgx_extension(lab.pki.platform)
        ),
        "other_name": lambda: issue("Simulated SGX TLS", issuer=root, now_s=lab.now_s, ca=False),
    }[role]()
    endorsements = signed_by(lab, authority, authority.pem() + root.pem())
    refused(lab.refusal(endorsements=endorsements), CheckName.SIGNING_CHAINS, alone=False)


def test_a_signing_certificate_must_be_issued_by_the_root_itself(lab: Any) -> None:
    """A certificate of the right name below the PCK CA is no TCB signer, with and without the CA in the chain."""
    signer = issue("Simulated SGX TCB Signing", issuer=lab.pki.pck_ca, now_s=lab.now_s, ca=False)
    for chain in (
        signer.pem() + lab.pki.root.pem(),
        signer.pem() + lab.pki.pck_ca.pem() + lab.pki.root.pem(),
        signer.pem(),
    ):
        error = lab.refusal(endorsements=signed_by(lab, signer, chain))
        refused(error, CheckName.SIGNING_CHAINS, alone=False)


def with_pck(lab: Any, pck: Any, chain: str) -> Any:
    """Return a report whose quote another PCK certificate vouches for."""
    pki = dataclasses.replace(lab.pki, pck=pck)
    spec = EnclaveReportSpec(mr_enclave=bytes(range(32)), report_data=lab.report().report_data())
    return lab.report(build_sgx_quote(pki, spec, chain_pem=chain))


def test_a_pck_certificate_issued_by_the_root_is_refused(lab: Any) -> None:
    """Platforms are certified by a PCK CA; the root never does so, in a chain of two or of three."""
    pki = lab.pki
    pck = issue(
        PCK_NAME, issuer=pki.root, now_s=lab.now_s, ca=False, sgx_extension=sgx_extension(pki.platform)
    )
    for chain in (pck.pem() + pki.root.pem(), pck.pem() + pki.pck_ca.pem() + pki.root.pem()):
        refused(lab.refusal(with_pck(lab, pck, chain)), CheckName.PCK_CHAIN, alone=False)


@pytest.mark.parametrize("fault", ["name", "no_extension", "ca", "two_extra", "order", "tcb_signer"])
def test_a_pck_chain_has_exactly_its_three_roles(lab: Any, fault: str) -> None:
    """Wrong name, missing extension, a CA as leaf, more certificates or another order: all refused."""
    pki = lab.pki
    extension = sgx_extension(pki.platform)

    def leaf(name: str = PCK_NAME, *, ca: bool = False, own: bytes | None = extension) -> Any:
        return issue(name, issuer=pki.pck_ca, now_s=lab.now_s, ca=ca, sgx_extension=own)

    pck = {
        "name": lambda: leaf("Simulated SGX PCK"),
        "no_extension": lambda: leaf(own=None),
        "ca": lambda: leaf(ca=True),
        "tcb_signer": lambda: pki.tcb_signing,
    }.get(fault, lambda: pki.pck)()
    tail = pki.pck_ca.pem() + pki.root.pem()
    if fault == "two_extra":
        tail += pki.root.pem()
    if fault == "order":
        tail = pki.root.pem() + pki.pck_ca.pem()
    refused(lab.refusal(with_pck(lab, pck, pck.pem() + tail)), CheckName.PCK_CHAIN, alone=False)


def test_the_pck_chain_of_another_platform_does_not_vouch(lab: Any) -> None:
    """Two platforms of one family below one CA are still two platforms."""
    other = issue(
        PCK_NAME,
        issuer=lab.pki.pck_ca,
        now_s=lab.now_s,
        ca=False,
        sgx_extension=sgx_extension(lab.pki.platform),
    )
    spec = EnclaveReportSpec(mr_enclave=bytes(range(32)), report_data=lab.report().report_data())
    chain = other.pem() + lab.pki.pck_ca.pem() + lab.pki.root.pem()
    report = lab.report(build_sgx_quote(lab.pki, spec, chain_pem=chain))
    refused(lab.refusal(report), CheckName.QUOTE_SIGNATURES, alone=False)


def test_a_pck_chain_beside_the_quote_must_be_its_own(lab: Any) -> None:
    """The quote's own chain may be repeated in the collateral; another one is refused, and never used."""
    document = json.loads(lab.collateral())
    own = json.dumps(document | {"pck_certificate_chain": lab.pki.pck_chain_pem() + "\x00"})
    lab.appraise(endorsements=parse_endorsements(own.encode()))
    other = json.dumps(document | {"pck_certificate_chain": create_pki(lab.now_s).pck_chain_pem()})
    refused(lab.refusal(endorsements=parse_endorsements(other.encode())), CheckName.PCK_CHAIN, alone=False)


def test_another_installations_root_is_another_world(lab: Any) -> None:
    """Equal names below another root key vouch for nothing."""
    error = lab.refusal(root_der=create_pki(lab.now_s).root.der())
    refused(error, CheckName.SIGNING_CHAINS, alone=False)


def test_collateral_of_another_installation_is_refused(lab: Any) -> None:
    """Equal names and a genuine quote do not make foreign endorsements ours."""
    other = dataclasses.replace(lab, pki=create_pki(lab.now_s))
    refused(lab.refusal(endorsements=other.endorsements()), CheckName.SIGNING_CHAINS, alone=False)


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity"])
def test_edited_endorsements_are_refused_for_their_signature(lab: Any, member: str) -> None:
    """Any change to a signed document, even of white space, breaks its signature."""
    document = json.loads(lab.collateral())
    document[member] = document[member].replace('"version":', '"version": ')
    error = lab.refusal(endorsements=parse_endorsements(json.dumps(document).encode()))
    refused(error, CheckName.ENDORSEMENT_SIGNATURES, alone=False)


@pytest.mark.parametrize("member", ["root_ca_crl", "pck_crl"])
def test_revocation_lists_of_others_are_refused(lab: Any, member: str) -> None:
    """A CRL signed by another key, and the two CRLs exchanged, say nothing about our certificates."""
    other = json.loads(dataclasses.replace(lab, pki=create_pki(lab.now_s)).collateral())
    document = json.loads(lab.collateral())
    swapped = {"root_ca_crl": document["pck_crl"], "pck_crl": document["root_ca_crl"]}
    for crl in (other[member], swapped[member]):
        endorsements = parse_endorsements(json.dumps(document | {member: crl}).encode())
        refused(lab.refusal(endorsements=endorsements), CheckName.NOT_REVOKED, alone=False)


@pytest.mark.parametrize("member", list(json.loads(Path(__file__).parents[2].joinpath(
    "vectors", "attestation_verdicts.json").read_text())["collateral_members"]))  # fmt: skip
def test_a_missing_or_damaged_part_of_the_collateral_is_an_endorsement_error(lab: Any, member: str) -> None:
    """No part is optional, and none is guessed."""
    document = json.loads(lab.collateral())
    for value in (None, "", "zz", 7):
        damaged = {name: item for name, item in document.items() if name != member}
        if value is not None:
            damaged[member] = value
        if member == "pck_crl_issuer_chain" and value == "zz":
            continue  # carried along, never used
        with pytest.raises(EndorsementError):
            parse_endorsements(json.dumps(damaged).encode())


# --- The two trust domains ---------------------------------------------------------------------------------


def test_the_real_verifier_refuses_simulated_evidence_by_kind_and_by_root(lab: Any) -> None:
    """Simulated evidence fails for what it is; relabelled as real, it fails for its root."""
    verifier = Verifier(lab.policy())
    for tee_type, check in (("simulated", CheckName.EVIDENCE_TYPE), ("sgx", CheckName.SIGNING_CHAINS)):
        with pytest.raises(AttestationError) as caught:
            verifier.appraise(
                lab.report(tee_type=tee_type), lab.endorsements(), challenge=lab.challenge, now_s=lab.now_s
            )
        refused(caught.value, check, alone=False)


def test_the_simulated_verifier_refuses_the_real_root(lab: Any) -> None:
    """Nobody can make the simulated verifier vouch for real evidence."""
    assert trust_anchor(INTEL_SGX_ROOT_DER).vendor == "Intel"
    with pytest.raises(ConfigError):
        SimulatedVerifier(lab.policy(), INTEL_SGX_ROOT_DER)


def test_marks_rise_with_what_was_accepted_and_never_fall(lab: Any) -> None:
    """The marks of a result refuse everything older than that result's endorsements."""
    newer = lab.endorsements(crl_number=9, evaluation_number=22)
    marks = lab.appraise(endorsements=newer).marks
    assert marks == lab.marks(tcb_info=22, qe_identity=22, root_crl=9, pck_crl=9)
    refused(lab.refusal(marks=marks), CheckName.ROLLBACK)
    assert lab.appraise(endorsements=newer, marks=marks).marks == marks
    assert HighWaterMarks.from_json(json.dumps(marks.to_json()).encode()) == marks
