# SPDX-License-Identifier: Apache-2.0
"""Key configurations and their collections."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adyton_protocol.errors import LocalProtocolError, RemoteProtocolError
from adyton_protocol.hpke import Aead, Kdf, Kem, KemPrivateKey
from adyton_protocol.key_config import KeyConfig, encode_key_configs, parse_key_config, parse_key_configs
from adyton_protocol.suite import DEFAULT_SUITES

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "key_config.json").read_text())["vectors"]
KEYS = {kem: KemPrivateKey.generate(kem) for kem in Kem}
SUITES = st.lists(st.sampled_from([(Kdf.HKDF_SHA256, aead) for aead in Aead]), min_size=1, max_size=4).map(
    tuple
)
CONFIGS = st.lists(
    st.builds(KeyConfig.of, st.integers(0, 255), st.sampled_from(list(KEYS.values())), SUITES),
    min_size=1,
    max_size=4,
    unique_by=lambda config: config.key_id,
)


def as_json(config: KeyConfig) -> dict[str, Any]:
    """A configuration as the vectors write it."""
    return {
        "key_id": config.key_id,
        "kem": int(config.kem),
        "public_key": config.public_key.hex(),
        "suites": [[int(number) for number in suite] for suite in config.suites],
    }


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    """Each collection is read as written down, or refused whole with the written code."""
    data = bytes.fromhex(vector["input"])
    if "accepted" in vector:
        assert [as_json(config) for config in parse_key_configs(data)] == vector["accepted"]
        return
    with pytest.raises(RemoteProtocolError) as caught:
        parse_key_configs(data)
    assert caught.value.code == vector["rejected"]


@given(configs=CONFIGS)
def test_round_trip(configs: list[KeyConfig]) -> None:
    """What we write we read, as a collection and one by one."""
    assert parse_key_configs(encode_key_configs(configs)) == tuple(configs)
    for config in configs:
        assert parse_key_config(config.encode()) == config


@given(configs=CONFIGS, data=st.data())
def test_truncation_discards_the_whole_collection(configs: list[KeyConfig], data: st.DataObject) -> None:
    """A collection cut anywhere but between entries is refused; no entry is recovered from it."""
    encoded = encode_key_configs(configs)
    edges = {0}
    for config in configs:
        edges.add(max(edges) + 2 + len(config.encode()))
    end = data.draw(st.integers(0, len(encoded) - 1).filter(lambda position: position not in edges))
    with pytest.raises(RemoteProtocolError):
        parse_key_configs(encoded[:end])


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes(data: bytes) -> None:
    """Attacker-controlled bytes give configurations or a RemoteProtocolError."""
    for parse in (parse_key_config, parse_key_configs):
        with contextlib.suppress(RemoteProtocolError):
            parse(data)


@given(configs=CONFIGS, position=st.integers(0, 5000), value=st.integers(0, 255))
def test_mutated_collections(configs: list[KeyConfig], position: int, value: int) -> None:
    """A collection with one byte changed is read or refused, and what is read can be written again."""
    encoded = bytearray(encode_key_configs(configs))
    encoded[position % len(encoded)] = value
    with contextlib.suppress(RemoteProtocolError):
        parsed = parse_key_configs(bytes(encoded))
        assert parse_key_configs(encode_key_configs(parsed)) == parsed


@pytest.mark.parametrize(
    "changes",
    [
        {"key_id": -1},
        {"key_id": 256},
        {"suites": ()},
        {"suites": DEFAULT_SUITES * 6000},
        {"public_key": bytes(31)},
        {"kem": Kem.X_WING},
    ],
    ids=str,
)
def test_what_cannot_be_encoded_is_our_mistake(changes: dict[str, Any]) -> None:
    """A configuration that has no encoding does not come into being."""
    good: dict[str, Any] = {"key_id": 1, "kem": Kem.X25519, "public_key": KEYS[Kem.X25519].public_bytes}
    KeyConfig(**good)
    with pytest.raises(LocalProtocolError):
        KeyConfig(**{**good, **changes})


def test_collections_need_distinct_entries() -> None:
    """An empty collection and one with a key id twice cannot be written."""
    config = KeyConfig.of(1, KEYS[Kem.X25519])
    for configs in ([], [config, KeyConfig.of(1, KEYS[Kem.X_WING])]):
        with pytest.raises(LocalProtocolError):
            encode_key_configs(configs)


def test_unsupported_single_configuration() -> None:
    """A single configuration that we cannot use is an error, not an empty result."""
    with pytest.raises(RemoteProtocolError):
        parse_key_config(bytes.fromhex("010011") + bytes(97) + bytes.fromhex("000400010001"))
