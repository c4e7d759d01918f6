# SPDX-License-Identifier: Apache-2.0
"""Switches of chat templates, above all whether and how much a model reasons.

``reasoning_effort`` is OpenAI's, ``chat_template_kwargs`` is vLLM's. They mean something only to templates that read
such a variable; for others they are ignored, and the answer says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from adyton_enclave.api.fields import Fields
from adyton_enclave.engine.dialect import Dialect

EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh")
MAX_OPTIONS: Final = 16
MAX_OPTION_CHARS: Final = 256
_SWITCHES: Final = ("enable_thinking", "thinking")
_RESERVED: Final = frozenset(
    {
        "messages", "tools", "bos_token", "eos_token", "add_generation_prompt", "raise_exception", "range",
        "namespace", "dict", "cycler", "joiner", "strftime_now",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateOptions:
    """What a request asks of the model's template.

    Attributes:
        effort: One of :data:`EFFORTS`, or None.
        extra: Variables of the template that the caller sets.
    """

    effort: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict, repr=False)

    def resolve(self, dialect: Dialect) -> tuple[dict[str, object], tuple[str, ...]]:
        """Variables for a model's template, and the names of parameters that mean nothing to it."""
        variables = {
            name: value for name, value in self.extra.items() if name in dialect.variables - _RESERVED
        }
        ignored = ("chat_template_kwargs",) if len(variables) < len(self.extra) else ()
        if self.effort is None:
            return variables, ignored
        effort: dict[str, object] = {
            name: self.effort != "none" for name in _SWITCHES if name in dialect.variables
        }
        if "reasoning_effort" in dialect.variables and self.effort != "none":
            effort["reasoning_effort"] = self.effort
        if not effort:
            ignored = ("reasoning_effort", *ignored)
        return {**effort, **variables}, ignored


def parse_template_options(fields: Fields) -> TemplateOptions:
    """Take the attacker-controlled members.

    Raises:
        InvalidRequest: ``param`` names the field at fault.
    """
    effort = fields.text("reasoning_effort", max_chars=16)
    if effort is not None and effort not in EFFORTS:
        raise fields.wrong("reasoning_effort", f"must be one of {', '.join(EFFORTS)}")
    extra = fields.take("chat_template_kwargs")
    if extra is None:
        extra = {}
    if not isinstance(extra, dict) or len(extra) > MAX_OPTIONS:
        raise fields.wrong("chat_template_kwargs", f"must be an object of at most {MAX_OPTIONS} members")
    for value in extra.values():
        if not isinstance(value, bool | int | float | str) or len(str(value)) > MAX_OPTION_CHARS:
            raise fields.wrong(
                "chat_template_kwargs", "must hold short strings, numbers, true and false only"
            )
    return TemplateOptions(effort=effort, extra=extra)
