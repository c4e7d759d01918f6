# SPDX-License-Identifier: Apache-2.0
"""Jinja as chat templates expect it: sandboxed, without a clock, randomness or I/O."""

import json
from typing import Any, NoReturn

from jinja2 import Undefined, nodes
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adyton_enclave.engine.template_limits import (
    INTERCEPTED,
    Limits,
    check_call,
    check_format,
    check_operator,
    concatenate,
    limited_filter,
    spend,
)


class Refused(Exception):
    """A template called ``raise_exception``."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Jinja as chat templates expect it (transformers' settings), minus everything that varies or has no end."""

    intercepted_binops = INTERCEPTED

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
        # SECURITY: a template may loop and grow within limits only; see ``template_limits``.
        self.filters.update({name: limited_filter(name, each) for name, each in self.filters.items()})
        self.concatenate = concatenate

    @property
    def turn(self) -> None:
        """A turn of a loop: looking at it costs a step."""
        spend()

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what the sandbox allows, within the limits."""
        check_call(function, (*args, *kwargs.values()))
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute what the operators in ``INTERCEPTED`` mean, within the limits."""
        check_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Any:
        """``str.format`` of the sandbox, for formats of ordinary widths."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            check_format(value.__self__)
        return wrapped

    def _generate(
        self,
        source: nodes.Template,
        name: str | None,
        filename: str | None,
        defer_init: bool = False,  # noqa: FBT001, FBT002  # as the base class has it
    ) -> str:
        limited = Limits().visit(source)
        limited.set_environment(self)
        return super()._generate(limited, name, filename, defer_init)


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
