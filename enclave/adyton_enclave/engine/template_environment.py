# SPDX-License-Identifier: Apache-2.0
"""Jinja as chat templates expect it: sandboxed, without a clock, randomness or I/O."""

import json
from typing import NoReturn

from jinja2 import Undefined
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Refused(Exception):
    """A template called ``raise_exception``."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Jinja as chat templates expect it (transformers' settings), minus everything that varies."""

    def __init__(self) -> None:
        loop_controls: type[Extension] | str = "jinja2.ext.loopcontrols"
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loop_controls, _GenerationBlock],
            undefined=Undefined,
        )
        self.filters["tojson"] = _to_json
        # `range` stays, in the sandbox's bounded form; lipsum is random text.
        self.globals.pop("lipsum", None)
        self.globals["raise_exception"] = _raise_exception


def _raise_exception(message: object) -> NoReturn:
    raise Refused(str(message))


def _to_json(
    value: object,
    ensure_ascii: object = None,  # noqa: ARG001  # templates pass it
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002  # as templates call it
) -> str:
    """Without jinja's HTML escapes and with plain Unicode, as transformers does it.

    SECURITY: never escaped to ASCII: the stand-ins of ``chat_template`` have to come through.
    """
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)


class _GenerationBlock(Extension):
    """``{% generation %}``, by which templates tell a trainer what the model wrote. Here it means nothing."""

    tags = {"generation"}  # noqa: RUF012  # the base class declares it so

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
