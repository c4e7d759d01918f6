# SPDX-License-Identifier: Apache-2.0
"""``docs/model-identity.md`` says what the code does."""

import re
from pathlib import Path

from adyton_protocol import gguf, gguf_canonical, gguf_checks, gguf_vocabulary, model_identity, weights_tree

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "model-identity.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """The table under a heading: first and second column."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {line[0].strip("`"): line[1] for line in lines[1:]}


def test_the_page_lists_what_is_left_out_and_why() -> None:
    """Keys, families and reasons are those of the code, no more and no fewer."""
    families = {prefix + "*": why for prefix, why in gguf_canonical.NEUTRAL_PREFIXES.items()}
    assert rows("What is left out") == {**gguf_canonical.NEUTRAL_KEYS, **families}


def test_the_page_names_every_check() -> None:
    """Whatever a parser may refuse a file for is explained."""
    named: set[str] = set()
    for module in (gguf, gguf_canonical, gguf_checks, gguf_vocabulary, model_identity, weights_tree):
        named |= set(re.findall(r'check="([a-z-]+)"', Path(str(module.__file__)).read_text()))
    assert named <= {
        name for row in rows("What a model file may not contain") for name in re.findall(r"[a-z-]+", row)
    }


def test_the_page_states_the_limits() -> None:
    """Numbers of the page are those of the code."""
    said = rows("Limits")
    for name, module in (
        ("MAX_HEADER_BYTES", gguf),
        ("MAX_KEYS", gguf),
        ("MAX_TENSORS", gguf),
        ("MAX_STRING_BYTES", gguf),
        ("MAX_ARRAY_ITEMS", gguf),
        ("MAX_ELEMENTS", gguf),
        ("MAX_ALIGNMENT", gguf),
        ("MAX_SPLITS", gguf_canonical),
        ("MAX_LAYERS", gguf_checks),
        ("MAX_EXPERTS", gguf_checks),
        ("MAX_TEMPLATE_BYTES", gguf_vocabulary),
    ):
        assert said[name].replace(",", "") == str(getattr(module, name))


def test_the_page_states_versions_and_the_domain() -> None:
    """What is hashed first is what the page says."""
    assert rows("identity")["version"] == str(model_identity.VERSION)
    assert model_identity._KEYS_DOMAIN == b"adyton model keys v1\x00"
    assert "`adyton model keys v1`" in PAGE
    assert weights_tree.CHUNK_BYTES == 2**20
