# SPDX-License-Identifier: Apache-2.0
"""Real Intel quotes: accepted, refused and told apart at the time for which their collateral was issued."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import real_samples
from adyton.cli import main
from adyton_attestation.bare_quote import QuoteAppraisal, appraise_quote
from adyton_attestation.checks import CheckName, checks_of, failed_check
from adyton_attestation.endorsements import Endorsements, parse_endorsements
from adyton_attestation.policy import NO_EXPIRY_S, RAW_QUOTE_POLICY, AllowedAdvisory, StatusException
from adyton_attestation.quote import parse_quote
from adyton_protocol.errors import AttestationError, EndorsementError

pytestmark = [
    pytest.mark.network,
    pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning"),
    pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning"),
]

DAY_S = 86_400


@pytest.fixture(scope="session")
def samples() -> dict[str, bytes]:
    """The files, or a visible skip."""
    try:
        return real_samples.samples()
    except real_samples.NotAvailable as reason:
        pytest.skip(f"real quotes are not available: {reason}")


def endorsements(samples: dict[str, bytes], name: str) -> Endorsements:
    """Return the collateral of a sample."""
    return parse_endorsements(samples[f"{name}_collateral.json"])


def window(samples: dict[str, bytes], name: str) -> int:
    """Return a time within the validity of a sample's collateral."""
    found = endorsements(samples, name)
    return max(item.issued_s for item in (found.tcb_info, found.qe_identity, found.pck_crl)) + DAY_S


def appraise(samples: dict[str, bytes], name: str, **changes: Any) -> QuoteAppraisal:
    """Appraise a sample within its window; changes are arguments."""
    arguments: dict[str, Any] = {
        "quote": samples[name],
        "endorsements": endorsements(samples, name),
        "now_s": window(samples, name),
    } | changes
    return appraise_quote(**arguments)


def refusal(samples: dict[str, bytes], name: str, **changes: Any) -> AttestationError:
    """Appraise what must be refused."""
    with pytest.raises(AttestationError) as caught:
        appraise(samples, name, **changes)
    return caught.value


@pytest.mark.parametrize(("name", "number"), [("tdx_quote", 17), ("tdx_quote_td15ex", 20)])
def test_up_to_date_platforms_are_accepted(samples: dict[str, bytes], name: str, number: int) -> None:
    """Genuine TDX quotes of versions 4 and 5 pass in their window, with no advisory against them."""
    result = appraise(samples, name)
    assert (result.claims.status, result.claims.advisory_ids) == ("UpToDate", ())
    assert result.claims.evaluation_number == number
    assert not result.simulated
    assert len(result.claims.ppid) == 16


def test_an_sgx_platform_that_needs_configuration_is_refused_until_a_policy_names_it(
    samples: dict[str, bytes],
) -> None:
    """Status and advisory each refuse; a policy that names both accepts the same bytes."""
    error = refusal(samples, "sgx_quote")
    assert failed_check(error) == "tcb-status"
    assert [item.name for item in checks_of(error) if item.verdict == "fail"] == ["tcb-status", "advisories"]
    known = (*RAW_QUOTE_POLICY.tcb.advisories, AllowedAdvisory(
        advisory_id="INTEL-SA-00289", reason="test", expires_s=NO_EXPIRY_S))  # fmt: skip
    tcb = dataclasses.replace(
        RAW_QUOTE_POLICY.tcb,
        exceptions=(
            StatusException(status="ConfigurationAndSWHardeningNeeded", reason="test", expires_s=NO_EXPIRY_S),
        ),
        advisories=known,
    )
    accepted = appraise(samples, "sgx_quote", policy=dataclasses.replace(RAW_QUOTE_POLICY, tcb=tcb))
    assert accepted.claims.status == "ConfigurationAndSWHardeningNeeded"
    assert accepted.quote.report.report_data.startswith(b"Hello, world!")


def test_an_outdated_platform_is_refused(samples: dict[str, bytes]) -> None:
    """A platform that has fallen below every level of newer TCB info does not verify."""
    assert failed_check(refusal(samples, "tdx_quote_outdated")) == "dcap-verification"


def test_old_evaluation_data_is_refused_where_a_policy_asks(samples: dict[str, bytes]) -> None:
    """The same genuine quote fails a policy that demands newer TCB evaluation data, or has seen newer."""
    strict = dataclasses.replace(
        RAW_QUOTE_POLICY,
        tcb=dataclasses.replace(RAW_QUOTE_POLICY.tcb, min_evaluation_number=20),
        relaxations=tuple(
            item for item in RAW_QUOTE_POLICY.relaxations if item.check is not CheckName.EVALUATION_NUMBER
        ),
    )
    assert failed_check(refusal(samples, "tdx_quote", policy=strict)) == "evaluation-number"
    marks = appraise(samples, "tdx_quote_td15ex").marks
    assert failed_check(refusal(samples, "tdx_quote", marks=marks)) == "rollback"


def test_padding_of_real_quotes_is_accepted_and_other_tails_are_not(samples: dict[str, bytes]) -> None:
    """Quotes out of configfs carry zero bytes at their end; nothing else may follow."""
    quote = parse_quote(samples["tdx_quote"])
    assert quote.tail
    assert not any(quote.tail)
    canonical = samples["tdx_quote"][: quote.size_bytes]
    appraise(samples, "tdx_quote", quote=canonical)
    assert failed_check(refusal(samples, "tdx_quote", quote=canonical + b"\x01")) == "quote-length"


@pytest.mark.parametrize("name", ["tdx_quote", "tdx_quote_td15ex"])
def test_flipped_bits_of_real_quotes_are_refused(samples: dict[str, bytes], name: str) -> None:
    """Report, signature, attestation key, QE report and chain: no flipped bit passes."""
    size = parse_quote(samples[name]).size_bytes
    for byte in range(0, size, 23):
        flipped = bytearray(samples[name])
        flipped[byte] ^= 1 << (byte % 8)
        refusal(samples, name, quote=bytes(flipped))


def test_the_debug_bit_of_a_real_quote_is_refused_by_name(samples: dict[str, bytes]) -> None:
    """Debug is refused before anybody asks whether the signature still holds."""
    flipped = bytearray(samples["sgx_quote"])
    flipped[96] ^= 0x02
    assert failed_check(refusal(samples, "sgx_quote", quote=bytes(flipped))) == "debug-disabled"


def test_the_chain_of_another_platform_of_the_family_does_not_vouch(samples: dict[str, bytes]) -> None:
    """Two real platforms share FMSPC and CA; their PCK chains are not exchangeable."""
    ours, theirs = parse_quote(samples["tdx_quote"]), parse_quote(samples["tdx_quote_td15ex"])
    old, new = ours.signature.certification_data, theirs.signature.certification_data
    head, _, tail = samples["tdx_quote"][: ours.size_bytes].partition(old)
    assert not tail
    grown = bytearray(head + new)
    # Lengths from the inside out: the chain, the QE certification data, the signature section.
    for position in (len(head) - 4, 632 + 4 + 64 + 64 + 2, 632):
        length = int.from_bytes(grown[position : position + 4], "little") + len(new) - len(old)
        grown[position : position + 4] = length.to_bytes(4, "little")
    failed = [
        item.name
        for item in checks_of(refusal(samples, "tdx_quote", quote=bytes(grown)))
        if item.verdict == "fail"
    ]
    assert "quote-signatures" in failed
    assert "quote-format" not in failed


def test_real_collateral_holds_in_its_window_only(samples: dict[str, bytes]) -> None:
    """A second before issue and a second after the first expiry, the same collateral is refused."""
    found = endorsements(samples, "tdx_quote")
    parts = (found.tcb_info, found.qe_identity, found.pck_crl, found.root_crl)
    for now_s in (max(item.issued_s for item in parts) - 1, min(item.next_update_s for item in parts) + 1):
        assert failed_check(refusal(samples, "tdx_quote", now_s=now_s)) == "endorsements-current"


def test_edited_or_exchanged_real_collateral_is_refused(samples: dict[str, bytes]) -> None:
    """A status rewritten, another family's TCB info, another CA's CRL, a missing or damaged CRL: all refused."""
    genuine = json.loads(samples["tdx_quote_collateral.json"])
    sgx = json.loads(samples["sgx_quote_collateral.json"])
    edited = genuine["tcb_info"].replace('"tcbStatus":"OutOfDate"', '"tcbStatus":"UpToDate"')
    assert edited != genuine["tcb_info"]
    for changes, check in (
        ({"tcb_info": edited}, "endorsement-signatures"),
        ({name: sgx[name] for name in ("tcb_info", "tcb_info_signature")}, "dcap-verification"),
        ({"pck_crl": sgx["pck_crl"]}, "not-revoked"),
        ({"pck_crl": genuine["root_ca_crl"]}, "not-revoked"),
    ):
        bent = parse_endorsements(json.dumps(genuine | changes).encode())
        assert failed_check(refusal(samples, "tdx_quote", endorsements=bent)) == check
    for damage in ("", genuine["pck_crl"][:-2], "00" + genuine["pck_crl"]):
        with pytest.raises(EndorsementError):
            parse_endorsements(json.dumps(genuine | {"pck_crl": damage}).encode())


def test_real_quotes_do_not_pass_under_a_simulated_root(samples: dict[str, bytes], lab: Any) -> None:
    """Each trust domain refuses the other's evidence."""
    error = refusal(samples, "tdx_quote", root_der=lab.pki.root.der())
    assert failed_check(error) == "signing-chains"


def test_the_command_agrees(samples: dict[str, bytes], tmp_path: Path, capsys: Any) -> None:
    """The command line accepts and refuses the same, from binary and from hexadecimal files."""
    for name, content in samples.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "tdx_quote.hex").write_text(samples["tdx_quote"].hex())

    def run(quote: str, collateral: str, at: int) -> int:
        line = ["--quote", str(tmp_path / quote), "--collateral", str(tmp_path / collateral), "--at", str(at)]
        status = main(["quote", "verify", *line])
        capsys.readouterr()
        return status

    at = window(samples, "tdx_quote")
    for quote in ("tdx_quote", "tdx_quote.hex"):
        assert run(quote, "tdx_quote_collateral.json", at) == 0
    assert (
        run("tdx_quote_td15ex", "tdx_quote_td15ex_collateral.json", window(samples, "tdx_quote_td15ex")) == 0
    )
    assert run("sgx_quote", "sgx_quote_collateral.json", window(samples, "sgx_quote")) == 1
    assert run("tdx_quote", "tdx_quote_collateral.json", at + 365 * DAY_S) == 1
