# SPDX-License-Identifier: Apache-2.0
"""What happens to every request parameter that OpenAI's API, or a common server after its pattern, has.

This table is the decision itself: the parsers refuse and ignore by it, and the documents are made from it. A
parameter is ignored only when doing without it cannot make an answer wrong: hints, labels, accounting. The names
of ignored ones come back in the answer's header ``adyton-warning``. What would change an answer's meaning is
refused. A name that is not in the table is refused as unknown.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from adyton_enclave.api.errors import UnsupportedParameter
from adyton_enclave.api.fields import Fields, same

WARNING_HEADER: Final = "adyton-warning"
"""Inner response header: ``ignored: name, name``, and whatever else a caller should know, after semicolons."""

NOT_REPRODUCIBLE: Final = "seed: this model is not reproducible"
"""What a caller is told who sets a seed where the model's logits depend on what shares its batch."""

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
EMBEDDINGS: Final = "/v1/embeddings"
RESPONSES: Final = "/v1/responses"
SCORE: Final = "/v1/score"
_CHOICES: Final = (CHAT, COMPLETIONS)
_CHATS: Final = (CHAT, RESPONSES)
_GENERATION: Final = (CHAT, COMPLETIONS, RESPONSES)


class Treatment(Enum):
    """What the enclave does with a parameter."""

    SUPPORTED = "supported"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of some endpoints.

    Attributes:
        name: As it stands in the body.
        endpoints: Paths that know it.
        treatment: Of values other than ``neutral`` ones.
        note: For the documents: bounds, meaning where it differs, or why not.
        neutral: Values that ask for nothing; they are taken without a word.
    """

    name: str
    endpoints: tuple[str, ...]
    treatment: Treatment
    note: str
    neutral: tuple[object, ...] = ()


def _supported(endpoints: tuple[str, ...], **notes: str) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(name=name, endpoints=endpoints, treatment=Treatment.SUPPORTED, note=note)
        for name, note in notes.items()
    )


def _ignored(endpoints: tuple[str, ...], **notes: str) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(name=name, endpoints=endpoints, treatment=Treatment.IGNORED, note=note)
        for name, note in notes.items()
    )


def _refused(endpoints: tuple[str, ...], name: str, note: str, *neutral: object) -> Parameter:
    return Parameter(
        name=name, endpoints=endpoints, treatment=Treatment.REFUSED, note=note, neutral=tuple(neutral)
    )


PARAMETERS: Final[tuple[Parameter, ...]] = (
    *_supported(
        _GENERATION,
        model=(
            "A name of `GET /v1/models`; `default` or nothing is the first model. Behind `@`, a "
            "[search](#verified-search): `name@rebase-8`."
        ),
        stop="A string or up to 16, each of 1 to 256 characters; not part of the answer.",
        temperature="0 to 2; below 0.000001 is 0, which is greedy.",
        top_p="Above 0, to 1.",
        top_k="0 is off. Extension, as in vLLM.",
        min_p="0 to 1; 0 is off. Extension, as in vLLM.",
        seed="Equal seeds give equal answers on the same model identity, whatever else is running, if "
        "/v1/models calls the model reproducible; if not, adyton-warning says so.",
        frequency_penalty="-2 to 2, on what the answer holds so far.",
        presence_penalty="-2 to 2, on what the answer holds so far.",
        repetition_penalty="0.01 to 2; 1 is off; prompt and answer count. Extension, as in vLLM.",
        logit_bias="Token ids as strings, each -100 to 100, at most 1024 of them.",
        stream="Server-sent events; the receipt stands before `[DONE]`.",
        privacy="`off`, `size` or `cadence`, never below the operator's floor. Extension.",
        service_tier=(
            "`flex` waits behind others and gives its place to them; `auto` and `default` are the ordinary tier. "
            "The answer names the tier."
        ),
        deadline_ms="After so many milliseconds the work is dropped, with error 504. Extension.",
        cache_salt=(
            "A secret of 16 to 256 characters: prompts that begin like earlier ones with the same salt are not "
            "computed anew, for as long as the sealing key lives. Nothing is cached without it. Extension, as in "
            "vLLM."
        ),
        scaling="A search for a better answer; see [verified search](#verified-search). Extension.",
    ),
    *_supported(
        _CHOICES,
        max_tokens="At least 1. In chat, the older name of `max_completion_tokens`.",
        n="From 1 to the operator's bound. Choices share the computation of the prompt.",
        stream_options="`include_usage`. `include_obfuscation` is ignored: `privacy` decides about sizes.",
    ),
    *_supported(
        _CHATS,
        tools="Functions, at most 128. Other types are refused.",
        tool_choice="`none`, `auto`, `required`, a function, or `allowed_tools`.",
        parallel_tool_calls="At most 16 calls in an answer, or one. Llama 3's form has one only.",
    ),
    *_supported(
        (RESPONSES,),
        input=(
            "A text, or items: messages of text, function calls and their outputs, reasoning. References to stored "
            "items are refused."
        ),
        instructions="A system message before all others.",
        max_output_tokens="At least 1; counts reasoning and tool calls.",
        text=(
            "`format` is `text`, `json_object` or `json_schema`, enforced by grammar as in chat. `verbosity` is "
            "ignored: no loaded model was trained for it."
        ),
        reasoning=(
            "`effort` is `none` to `xhigh`, for models whose template has such a switch; ignored for others. "
            "`summary` is ignored: the reasoning itself is in the answer."
        ),
        include="`message.output_text.logprobs`; `reasoning.encrypted_content` asks for nothing here.",
        top_logprobs="0 to 20, requires `include` to hold `message.output_text.logprobs`.",
        stream_options="`include_obfuscation` is ignored: `privacy` decides about sizes.",
    ),
    *_supported(
        (CHAT,),
        messages="Text only. Roles: system, developer (= system), user, assistant, tool.",
        max_completion_tokens="At least 1; counts reasoning and tool calls.",
        logprobs="True or false; reasoning and tool calls are reported too.",
        top_logprobs="0 to 20, requires `logprobs`.",
        response_format=(
            "`text`, `json_object`, `json_schema`. Enforced by grammar, strict or not: an answer that ends with "
            "`stop` is a document of the schema; a schema that cannot be enforced is refused."
        ),
        reasoning_effort="`none` to `xhigh`, for models whose template has such a switch; ignored for others.",
        chat_template_kwargs=(
            "Variables of the template, such as `enable_thinking`; those it does not read are ignored. "
            "Extension, as in vLLM."
        ),
    ),
    *_supported(
        (COMPLETIONS,),
        prompt="A text, token ids, or an array of either.",
        logprobs="0 to 20 alternatives of each token.",
        best_of=(
            "At least `n`; of so many candidates the best `n` come back, and the tokens of all are counted. The best "
            "are by weighted vote if the model has a scorer and there is one prompt, else by the mean log-probability "
            "of their tokens. Not with `stream`."
        ),
        echo="The prompt before the answer. Not with `logprobs`: a prompt's log-probabilities are not computed.",
    ),
    *_supported(
        (EMBEDDINGS,),
        model="A name of `GET /v1/models`; `default` or nothing is the first model that embeds.",
        input="A text, token ids, or an array of either, none of them empty; bounded by the operator.",
        encoding_format="`float` or `base64` (little-endian float32).",
        dimensions="Shorter vectors, where the operator says that the model was trained for it.",
        privacy="`off`, `size` or `cadence`, never below the operator's floor. Extension.",
    ),
    *_supported(
        (SCORE,),
        model=(
            "A name of `GET /v1/models`: a scorer, or a generator that has one; `default` or nothing is the first "
            "scorer."
        ),
        problem="What the answer is to. Not blank.",
        steps=(
            "The answer: an array of steps, none of them blank, or one text that the scorer's own rule cuts into "
            "steps; bounded by the operator."
        ),
        privacy="`off`, `size` or `cadence`, never below the operator's floor. Extension.",
        service_tier="`flex` waits behind others; `auto` and `default` are the ordinary tier.",
        deadline_ms="After so many milliseconds the work is dropped, with error 504.",
    ),
    *_ignored((EMBEDDINGS, SCORE), user="Nothing about an end user is kept."),
    *_ignored((SCORE,), metadata="Nothing is stored, so there is nothing to label."),
    *_ignored(
        _GENERATION,
        user="Nothing about an end user is kept.",
        safety_identifier="As `user`.",
        metadata="Nothing is stored, so there is nothing to label.",
        prompt_cache_key="Routing is not by content here.",
        prompt_cache_retention="As `prompt_cache_key`.",
    ),
    *_ignored(
        (CHAT,),
        prediction="A hint for speed only.",
        verbosity="No loaded model was trained for it.",
    ),
    *_ignored(
        (RESPONSES,),
        max_tool_calls="It bounds tools that run beside the model; there are none.",
        prompt_cache_options="As `prompt_cache_key`.",
    ),
    _refused((RESPONSES,), "n", "There is one answer.", 1),
    _refused((RESPONSES,), "previous_response_id", "Nothing is kept; send the earlier items as `input`."),
    _refused((RESPONSES,), "conversation", "Nothing is kept; send the earlier items as `input`."),
    _refused((RESPONSES,), "background", "Nothing is kept; there is no way to fetch it later.", False),
    _refused((RESPONSES,), "prompt", "No prompts are stored; send the texts themselves."),
    _refused(
        (RESPONSES,), "truncation", "Nothing is left out silently; what is too long is an error.", "disabled"
    ),
    _refused((RESPONSES,), "context_management", "Nothing is left out or rewritten silently.", []),
    _refused((RESPONSES,), "moderation", "The enclave dials nobody."),
    _refused((RESPONSES,), "image", "Text only."),
    _refused(_GENERATION, "store", "Nothing is kept; there is no way to fetch it later.", False),
    _refused(_GENERATION, "validation", "Not served yet."),
    _refused((COMPLETIONS,), "suffix", "No model is asked to fill in.", ""),
    _refused((CHAT,), "audio", "Text only."),
    _refused((CHAT,), "modalities", "Text only.", ["text"]),
    _refused((CHAT,), "web_search_options", "The enclave dials nobody."),
    _refused((CHAT,), "functions", "Deprecated; use `tools`.", []),
    _refused((CHAT,), "function_call", "Deprecated; use `tool_choice`.", "none"),
)


def treat(fields: Fields, endpoint: str) -> tuple[str, ...]:
    """Take the parameters that an endpoint does not serve, after its parser took those that it does.

    Args:
        fields: What is left of the attacker-controlled body.
        endpoint: Path of the endpoint.

    Returns:
        Names of ignored parameters, in the table's order.

    Raises:
        UnsupportedParameter: One is refused and does not ask for nothing.
    """
    ignored: list[str] = []
    for parameter in PARAMETERS:
        if endpoint not in parameter.endpoints or parameter.treatment is Treatment.SUPPORTED:
            continue
        value = fields.take(parameter.name)
        if value is None or any(same(value, neutral) for neutral in parameter.neutral):
            continue
        if parameter.treatment is Treatment.REFUSED:
            raise UnsupportedParameter(
                f"{fields.name(parameter.name)} is not supported by this model server. {parameter.note}",
                param=fields.name(parameter.name),
            )
        ignored.append(parameter.name)
    return tuple(ignored)


def warning_headers(ignored: Iterable[str], *others: str) -> tuple[tuple[str, str], ...]:
    """The header that names what was ignored, or none. Names are of the table, never the caller's own.

    Args:
        ignored: Names of parameters.
        others: Further warnings; empty ones say nothing.
    """
    names = ", ".join(ignored)
    warnings = [warning for warning in (names and f"ignored: {names}", *others) if warning]
    return ((WARNING_HEADER, "; ".join(warnings)),) if warnings else ()
