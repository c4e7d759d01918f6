# SPDX-License-Identifier: Apache-2.0
"""The linter of manifests: every rule has a manifest that breaks it alone, and nothing crashes it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifest_corpus import ALONE, BUILT_AT_TEST_TIME, CORPUS, SECURE, add, corpus, files, made, put

from adyton_host.enclave_config import render_toml
from adyton_host.manifest.lint import ALL_RULES, PINNED_MODELS, lint, read_manifest
from adyton_host.manifest.syntax import _OPTIONS
from adyton_protocol.errors import ConfigError

CASES = corpus()


def refused(data: bytes, directory: Path | None = CORPUS) -> set[str]:
    """Names of the rules that a manifest breaks."""
    return {finding.rule for finding in lint(data, name="a manifest", directory=directory).refused}


def test_every_rule_has_a_manifest_that_breaks_it_and_no_manifest_is_without_a_rule() -> None:
    """The corpus and the linter name the same rules, each once."""
    names = [rule.name for rule in ALL_RULES]
    assert len(set(names)) == len(names)
    assert set(names) == set(ALONE)


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_manifest_is_refused_for_exactly_what_is_wrong_with_it(name: str) -> None:
    """Each manifest of the corpus breaks the rules that it was made to break, and no other."""
    expected, data = CASES[name]
    assert refused(data) == expected


def test_the_files_of_the_corpus_are_the_ones_that_are_tested() -> None:
    """What somebody reads under ``tests/vectors/manifests`` is what the linter was held to."""
    on_disk = {str(p.relative_to(CORPUS)): p.read_text() for p in CORPUS.rglob("*.toml")}
    assert on_disk == files()
    assert len(BUILT_AT_TEST_TIME) == 1


def test_every_rule_gives_a_reason_that_is_its_own() -> None:
    """Nobody is refused without a reason, and no two rules say the same."""
    reasons = [rule.reason for rule in ALL_RULES]
    assert all(len(reason) > 20 for reason in reasons)
    assert len(set(reasons)) == len(reasons)


def test_the_documentation_lists_the_rules() -> None:
    """``docs/manifest.md`` has every rule with its reason, in the order of the linter."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "manifest.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 3]
    listed = rows[-len(ALL_RULES) :]
    assert listed == [f"| `{rule.name}` | {rule.reason} |" for rule in ALL_RULES]


def test_models_are_waived_by_name_because_the_measured_configuration_pins_them() -> None:
    """Models are the only allowed files of the secure manifest, and the verdict says who waived them."""
    verdict = lint(CASES[SECURE][1], name="a manifest", directory=CORPUS)
    assert verdict.passed
    (waived,) = verdict.waived
    assert (waived.rule, waived.waiver) == ("allowed-file", PINNED_MODELS)
    assert waived.found == ("file:models/small.gguf", "file:models/judge.gguf", "file:models/judge.toml")


def test_nothing_is_waived_without_the_configuration_that_pins_it(tmp_path: Path) -> None:
    """A manifest by itself, or one whose configuration is missing, has no pinned models."""
    assert refused(CASES[SECURE][1], None) == {"allowed-file"}
    assert refused(CASES[SECURE][1], tmp_path) == {"allowed-file"}


@pytest.mark.parametrize(
    "uri",
    ["file:models", "file:models/", "file:models/small.gguf/", "file:models/../models/small.gguf", "file:."],
)
def test_only_the_exact_file_of_a_pinned_model_is_waived(uri: str) -> None:
    """An entry that allows more than the pinned file, or names it in another way, is refused."""
    assert "allowed-file" in refused(made(add("sgx.allowed_files", uri)))


@pytest.mark.parametrize("key", ["content", "weights", "adapter_digest"])
def test_a_model_without_its_whole_pin_is_not_waived(key: str, tmp_path: Path) -> None:
    """A configuration that leaves a digest out, or writes something else there, waives nothing."""
    text = files()["root/adyton/enclave.toml"]
    for bad in ("", f'{key} = "sha256:1234"\n'):
        lines = [f"{line}\n" if not line.startswith(f"{key} =") else bad for line in text.splitlines()]
        changed = "".join(lines)
        (tmp_path / "root" / "adyton").mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / "adyton" / "enclave.toml").write_text(changed)
        document = made()
        document = document.replace(_sha256(text).encode(), _sha256(changed).encode())
        assert refused(document, tmp_path) == {"allowed-file"}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_rule_that_is_waived_by_hand_is_shown() -> None:
    """What the caller accepts does not disappear from the verdict."""
    verdict = lint(made(put("sgx.debug", True)), name="m", directory=CORPUS, waive=["debug-enclave"])
    assert verdict.passed
    assert [(each.rule, each.waiver) for each in verdict.waived] == [
        ("debug-enclave", "by hand"),
        ("allowed-file", PINNED_MODELS),
    ]


def test_waiving_a_rule_that_does_not_exist_is_an_error() -> None:
    """A misspelt waiver is not silently without effect."""
    with pytest.raises(ConfigError, match="no rule debug-enclaves"):
        lint(made(), name="m", directory=CORPUS, waive=["debug-enclaves"])


@pytest.mark.parametrize("option", sorted(name for name in _OPTIONS if "*" not in name and "[]" not in name))
def test_an_option_of_the_wrong_type_is_refused(option: str) -> None:
    """A text where a truth value belongs is not taken for its absence."""
    assert "unknown-option" in refused(made(put(option, 1.5)))


def test_what_is_no_toml_is_an_error() -> None:
    """Unreadable input is the caller's mistake and not a verdict."""
    for data in (b"[sgx\n", b"\xff\xfe"):
        with pytest.raises(ConfigError):
            lint(data, name="m", directory=None)


SCALARS = st.one_of(st.booleans(), st.integers(-(2**62), 2**62), st.text(max_size=8), st.just("file:../x"))
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(SCALARS, max_size=3),
        st.dictionaries(
            st.sampled_from(["uri", "path", "sha256", "type", "value", "passthrough", "x"]), inner, max_size=3
        ),
        st.lists(
            st.dictionaries(st.sampled_from(["uri", "path", "sha256", "type"]), SCALARS, min_size=1),
            max_size=3,
        ),
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from([name.replace("[]", "").replace(".*", ".X") for name in _OPTIONS]),
        VALUES,
        max_size=12,
    )
)
def test_no_manifest_crashes_the_linter(options: dict[str, Any]) -> None:
    """Whatever stands in a manifest, the verdict is a verdict; and a strange manifest never passes."""
    document: dict[str, Any] = {}
    for option, value in options.items():
        *above, last = option.split(".")
        table = document
        for key in above:
            inner = table.setdefault(key, {})
            table = inner if isinstance(inner, dict) else {}
        table[last] = value
    try:
        data = render_toml(document).encode()
    except ConfigError:
        return  # Values that our own writer has no TOML for.
    try:
        verdict = lint(data, name="m", directory=CORPUS)
    except ConfigError as error:
        assert "TOML" in str(error)  # noqa: PT017 -- the one error there is
    else:
        assert not verdict.passed


def test_a_trusted_file_that_is_only_a_text_has_no_hash() -> None:
    """Gramine's short form leaves the hash to whoever signs."""
    short = made(
        put("sgx.trusted_files", ["file:root/adyton/enclave.toml", "file:root/lib/", "file:root/python/x.py"])
    )
    assert refused(short) == {"file-without-hash", "allowed-file"}


def test_an_image_has_one_manifest(tmp_path: Path) -> None:
    """A directory with none, or with several, is not guessed about."""
    with pytest.raises(ConfigError, match="holds no "):
        read_manifest(tmp_path)
    (tmp_path / "a.manifest").write_bytes(b"x = 1")
    assert read_manifest(tmp_path) == (b"x = 1", tmp_path)
    (tmp_path / "b.manifest").write_bytes(b"")
    with pytest.raises(ConfigError, match="more than one"):
        read_manifest(tmp_path)
