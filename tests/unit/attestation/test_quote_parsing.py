# SPDX-License-Identifier: Apache-2.0
"""Quote parsing: exact on what it covers, one error class for everything else."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_attestation.quote import (
    MAX_QUOTE_BYTES,
    SgxQuoteV3,
    TdxQuoteV4,
    TdxQuoteV5,
    looks_like_quote,
    parse_quote,
)
from adyton_attestation.simulation.quoting import (
    EnclaveReportSpec,
    TdReportSpec,
    build_sgx_quote,
    build_tdx_quote,
)
from adyton_protocol.errors import MalformedEvidence

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "attestation_quotes.json").read_text())


def parses_or_refuses(data: bytes) -> bool:
    """Whether bytes parse; any error but the one promised escapes and fails the test."""
    try:
        parse_quote(data)
    except MalformedEvidence:
        return False
    return True


@given(st.binary(max_size=6000))
def test_arbitrary_bytes_raise_nothing_but_malformed_evidence(data: bytes) -> None:
    """Whatever the relay sends, the parser ends in a quote or in MalformedEvidence."""
    parses_or_refuses(data)
    looks_like_quote(data)


@given(data=st.data())
def test_mangled_quotes_raise_nothing_but_malformed_evidence(lab: Any, data: st.DataObject) -> None:
    """Bytes that are nearly a quote reach every branch, and still end in MalformedEvidence at worst."""
    version = data.draw(st.sampled_from([3, 4, 5]))
    quote = bytearray(_QUOTES.setdefault(version, _make(lab, version)))
    for _ in range(data.draw(st.integers(1, 6))):
        quote[data.draw(st.integers(0, 1400))] = data.draw(st.integers(0, 255))
    parses_or_refuses(bytes(quote[: data.draw(st.integers(0, len(quote)))]))


_QUOTES: dict[int, bytes] = {}


def _make(lab: Any, version: int) -> bytes:
    if version == 3:
        return lab.quote()
    report = TdReportSpec(mr_td=b"\x11" * 48, report_data=b"\x22" * 64)
    return build_tdx_quote(lab.pki, report, version=version)


def test_every_truncation_of_a_quote_is_malformed(lab: Any) -> None:
    """No prefix of a quote is a quote, so that nothing can hide a missing part."""
    quote = lab.quote()
    assert parses_or_refuses(quote)
    assert not any(parses_or_refuses(quote[:size]) for size in range(len(quote)))


def test_fields_of_an_sgx_quote_come_back_as_written(lab: Any) -> None:
    """Every field sits where the format says, including the key-separation fields in formerly reserved bytes."""
    spec = EnclaveReportSpec(
        mr_enclave=b"\x01" * 32,
        mr_signer=b"\x02" * 32,
        report_data=b"\x03" * 64,
        cpu_svn=b"\x04" * 16,
        misc_select=5,
        isv_ext_prod_id=b"\x06" * 16,
        config_id=b"\x07" * 64,
        isv_prod_id=8,
        isv_svn=9,
        config_svn=10,
        isv_family_id=b"\x0b" * 16,
    )
    quote = parse_quote(build_sgx_quote(lab.pki, spec))
    assert isinstance(quote, SgxQuoteV3)
    for name in ("mr_enclave", "mr_signer", "report_data", "cpu_svn", "misc_select", "isv_ext_prod_id", "config_id",
                 "isv_prod_id", "isv_svn", "config_svn", "isv_family_id"):  # fmt: skip
        assert getattr(quote.report, name) == getattr(spec, name)
    assert (quote.report.attribute_flags, quote.report.xfrm) == (0x05, 0xE7)


@pytest.mark.parametrize(("version", "kind"), [(4, TdxQuoteV4), (5, TdxQuoteV5)])
def test_fields_of_tdx_quotes_come_back_as_written(lab: Any, version: int, kind: type) -> None:
    """TDX quotes of both versions yield the same report."""
    measurements = (b"\x0a" * 48, b"\x0b" * 48, b"\x0c" * 48, b"\x0d" * 48)
    spec = TdReportSpec(mr_td=b"\x01" * 48, report_data=b"\x02" * 64, rt_mrs=measurements)
    quote = parse_quote(build_tdx_quote(lab.pki, spec, version=version))
    assert isinstance(quote, kind)
    assert (quote.report.mr_td, quote.report.rt_mrs, quote.report.report_data) == (
        spec.mr_td,
        measurements,
        spec.report_data,
    )
    assert not quote.report.debug


def test_what_follows_the_quote_is_kept_apart(lab: Any) -> None:
    """The tail is no part of the quote, and is there for the guard to judge."""
    quote = lab.quote()
    parsed = parse_quote(quote + b"\x00\x00\x01")
    assert (parsed.size_bytes, parsed.tail) == (len(quote), b"\x00\x00\x01")


def test_oversize_input_is_refused_before_it_is_read() -> None:
    """Memory and time are bounded by the limit."""
    with pytest.raises(MalformedEvidence, match="limit"):
        parse_quote(bytes(MAX_QUOTE_BYTES + 1))


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_quote_vectors(vector: dict[str, Any]) -> None:
    """The byte layout is fixed by vectors that other quoters can be held against."""
    data = bytes.fromhex(vector["input"])
    if "rejected" in vector:
        with pytest.raises(MalformedEvidence) as caught:
            parse_quote(data)
        assert caught.value.code == vector["rejected"]
        return
    quote = parse_quote(data)
    expected = vector["accepted"]
    assert quote.header.version == expected["version"]
    assert quote.report.report_data.hex() == expected["report_data"]
    assert len(quote.signed) == expected["signed_bytes"]
    assert quote.size_bytes == expected["size_bytes"]
    for name in ("mr_enclave", "mr_signer", "config_id", "mr_td"):
        if name in expected:
            assert getattr(quote.report, name).hex() == expected[name]
    for name in ("isv_prod_id", "isv_svn", "misc_select", "attribute_flags", "xfrm", "config_svn"):
        if name in expected:
            assert getattr(quote.report, name) == expected[name]


def test_the_vectors_are_what_their_script_makes() -> None:
    """The committed vectors can be made again, byte for byte."""
    script = Path(__file__).with_name("quote_vectors.py")
    made = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert json.loads(made) == VECTORS
