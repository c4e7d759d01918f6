# SPDX-License-Identifier: Apache-2.0
"""The air-gap bundle: what was signed comes out, by whoever was expected, and nothing else does."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adyton_attestation.certificates import trust_anchor
from adyton_attestation.private_keys import PrivateKey
from adyton_attestation.sources.bundle import (
    MAX_BUNDLE_BYTES,
    MAX_FILE_BYTES,
    Bundle,
    CarriedFile,
    CarriedSet,
    looks_like_bundle,
    make_bundle,
)
from adyton_attestation.sources.choice import FileSource, read_bundle
from adyton_attestation.sources.family import PlatformFamily
from adyton_attestation.sources.supply import EndorsementSupply
from adyton_protocol.digests import jcs
from adyton_protocol.errors import (
    ConfigError,
    EndorsementError,
    EndorsementsNotPublished,
    EndorsementSourceError,
)

KEY = PrivateKey(name="courier@example.org", seed=bytes(range(32)))
OTHER = PrivateKey(name="courier@example.org", seed=bytes(32))
FAMILIES = (
    PlatformFamily(tee="sgx", fmspc=bytes.fromhex("ad7705ffffff"), ca="platform"),
    PlatformFamily(tee="tdx", fmspc=bytes.fromhex("ad7705ffffff"), ca="platform"),
)
FILES = (
    CarriedFile(name="policy.toml", content=b"version = 2\n"),
    CarriedFile(name="release.json", content=b"{}"),
)


@pytest.fixture(scope="module")
def sets(lab) -> tuple[CarriedSet, ...]:
    """Two genuine sets."""
    return tuple(
        CarriedSet(family=f, source="Intel", fetched_s=lab.now_s, data=lab.collateral(tee=f.tee))
        for f in FAMILIES
    )


@pytest.fixture(scope="module")
def good(lab, sets) -> bytes:
    """A sound bundle."""
    return make_bundle(KEY, sets, FILES, made_s=lab.now_s)


def resigned(data: bytes, **changes) -> bytes:
    """The same bundle with other members, signed as if it had been made so."""
    document = json.loads(data)
    document["bundle"] |= changes
    message = b"adyton endorsement bundle v1\x00" + jcs(document["bundle"])
    document["signature"] = KEY.sign(message).hex()
    return json.dumps(document).encode()


def test_what_was_put_in_comes_out(good, sets, lab):
    """Sets, files, maker and time."""
    bundle = Bundle.parse(good)
    assert (bundle.carrier, bundle.made_s, bundle.files) == (KEY.public, lab.now_s, FILES)
    assert [item.family for item in bundle.sets] == [item.family for item in sets]
    for before, after in zip(sets, bundle.sets, strict=True):
        assert json.loads(after.data) == json.loads(before.data)
        assert bundle.set_of(before.family) == after
        assert (after.source, after.fetched_s) == ("Intel", lab.now_s)
    assert looks_like_bundle(good)
    assert not looks_like_bundle(sets[0].data)
    assert not looks_like_bundle(b"[")


def test_layout_is_not_signed_and_content_is(good):
    """Reformatting keeps the signature, for it is over the canonical form; any other content breaks it."""
    document = json.loads(good)
    assert Bundle.parse(json.dumps(document).encode()) == Bundle.parse(good)
    document["bundle"]["sets"][0]["source"] = "somebody else"
    with pytest.raises(EndorsementError, match="changed on its way"):
        Bundle.parse(json.dumps(document).encode())


def test_the_signature_has_a_domain_of_its_own(good):
    """What a carrier's key signs elsewhere is no bundle."""
    document = json.loads(good)
    document["signature"] = KEY.sign(jcs(document["bundle"])).hex()
    with pytest.raises(EndorsementError, match="signature"):
        Bundle.parse(json.dumps(document).encode())


def test_another_carrier_is_not_the_expected_one(good):
    """Anybody can sign a bundle; nobody's is taken unless he was named."""
    assert read_bundle(good, KEY.public, "b").carrier == KEY.public
    with pytest.raises(EndorsementSourceError, match="expected"):
        read_bundle(good, OTHER.public, "b")
    with pytest.raises(ConfigError, match="--carrier"):
        read_bundle(good, None, "b")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_bundle_is_refused(good, data):
    """One changed byte, or a cut: refused, or (white space, the case of a name's escape) the very same bundle."""
    content = bytearray(good)
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 3))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert Bundle.parse(bytes(content)) == Bundle.parse(good)
    except EndorsementError:
        return


@given(
    content=st.binary(max_size=80)
    | st.text(alphabet='{}[]":,bundlecarrisgt0123', max_size=80).map(str.encode)
)
def test_any_bytes_are_a_bundle_or_an_error(content):
    """The parser never ends in anything else."""
    with pytest.raises(EndorsementError):
        Bundle.parse(content)
    looks_like_bundle(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": True},
        {"more": 1},
        {"made_at": "yesterday"},
        {"made_at": "2026-13-01T00:00:00Z"},
        {"sets": {}},
        {"sets": [1]},
        {"files": [{"name": "../policy.toml", "content": ""}]},
        {"files": [{"name": ".hidden", "content": ""}]},
        {"files": [{"name": "a", "content": "?"}]},
        {"files": [{"name": "a", "content": ""}, {"name": "a", "content": ""}]},
        {"files": [{"name": "a", "content": "", "more": 1}]},
        {"files": [{"name": str(i), "content": ""} for i in range(17)]},
    ],
)
def test_a_signed_bundle_that_breaks_the_format_is_refused_all_the_same(good, changes):
    """Its signature says who made it, and not that he made it well."""
    with pytest.raises(EndorsementError):
        Bundle.parse(resigned(good, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "x"},
        {"source": ""},
        {"fetched_at": 1},
        {"endorsements": "x"},
        {"endorsements": None},
        {"x": 1},
    ],
)
def test_a_signed_set_that_breaks_the_format_is_refused(good, changes):
    """Each member of a set."""
    first, second = json.loads(good)["bundle"]["sets"]
    with pytest.raises(EndorsementError):
        Bundle.parse(resigned(good, sets=[first | changes, second]))
    with pytest.raises(EndorsementError, match="twice"):
        Bundle.parse(resigned(good, sets=[first, first]))


def test_a_bundle_has_a_largest_size(good):
    """Nothing of a larger file is looked at."""
    with pytest.raises(EndorsementError, match="exceed"):
        Bundle.parse(good.ljust(MAX_BUNDLE_BYTES + 1))
    big = CarriedFile(name="big", content=bytes(MAX_FILE_BYTES + 1))
    with pytest.raises(EndorsementError, match="larger"):
        make_bundle(KEY, (), (big,), made_s=0)


def test_what_a_bundle_carries_still_counts_by_intels_signatures_alone(lab, sets, tmp_path):
    """A carrier who is expected, with a forged set: refused as the forgery that it is."""
    path = tmp_path / "bundle.json"
    anchor = trust_anchor(lab.pki.root.der())
    supply = EndorsementSupply(FileSource(path, KEY.public), anchor)
    path.write_bytes(make_bundle(KEY, sets, made_s=lab.now_s))
    found = supply.obtain(FAMILIES[0], lab.now_s)
    assert lab.appraise(endorsements=found.kept.vetted.endorsements).claims.status == "UpToDate"
    forged = json.loads(sets[0].data)
    forged["tcb_info"] = forged["tcb_info"].replace("OutOfDate", "UpToDate")
    path.write_bytes(
        make_bundle(KEY, (dataclasses.replace(sets[0], data=json.dumps(forged).encode()),), made_s=lab.now_s)
    )
    with pytest.raises(EndorsementSourceError, match="signature"):
        supply.obtain(FAMILIES[0], lab.now_s)
    with pytest.raises(EndorsementsNotPublished, match="nothing for tdx"):
        supply.obtain(FAMILIES[1], lab.now_s)
