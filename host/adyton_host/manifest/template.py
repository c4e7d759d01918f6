# SPDX-License-Identifier: Apache-2.0
"""Fills in the template of the manifest.

The template is TOML with names between double braces, a part of what Gramine's own template language understands. What
comes out is parsed and written anew, so that comments and spaces of the template are not measured.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from adyton_host.enclave_config import render_toml
from adyton_protocol.errors import ConfigError

TEMPLATE: Final = "enclave.manifest.template"
_PLACEHOLDER: Final = re.compile(r"\{\{ ([a-z0-9_]+) \}\}")


def fill(template: str, values: Mapping[str, str]) -> bytes:
    """The manifest as it is measured: UTF-8, without comments, tables in the order of the template.

    Args:
        template: Its text.
        values: What to write for each name, as TOML.

    Raises:
        ConfigError: A name is missing on either side, or the result is not TOML.
    """
    wanted = set(
        _PLACEHOLDER.findall("\n".join(line for line in template.splitlines() if not line.startswith("#")))
    )
    if wanted != set(values):
        wrong = ", ".join(sorted(wanted ^ set(values)))
        raise ConfigError(f"the template and what is filled in differ in {wrong}")
    try:
        document = tomllib.loads(_PLACEHOLDER.sub(lambda found: values[found[1]], template))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the filled template is not TOML: {error}") from error
    return render_toml(document).encode("utf-8")


def text(value: str) -> str:
    """A TOML string."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def lines(items: Iterable[str]) -> str:
    """Elements of an array, one in a line."""
    return "\n".join(f"  {item}," for item in items)


def inline(table: Mapping[str, str]) -> str:
    """An inline table of texts."""
    return "{ " + ", ".join(f"{key} = {text(value)}" for key, value in table.items()) + " }"


def parse(data: bytes, name: str) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        ConfigError: It is not TOML in UTF-8.
    """
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{name} is not valid TOML in UTF-8: {error}") from error


def input_digest(manifest: bytes) -> str:
    """SHA-256 of a rendered manifest: what goes into MRENCLAVE from our side, beside Gramine's own ``libpal.so``."""
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"
