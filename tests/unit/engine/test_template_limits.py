# SPDX-License-Identifier: Apache-2.0
"""Hostile chat templates: cyclic, recursive, gigantic and growing ones end in a typed error, soon and small."""

import contextlib
import resource
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment
from tiny_gguf import make_tiny_gguf

from adyton_enclave.engine.chat_template import ChatTemplate
from adyton_enclave.engine.llama import LlamaModel
from adyton_enclave.engine.template_environment import TemplateEnvironment
from adyton_enclave.engine.template_limits import TooMuch, budget
from adyton_protocol.errors import ConfigError, InvalidRequest

MESSAGES = [{"role": "user", "content": "hello"}]

HOSTILE = {
    "macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macros that call each other": (
        "{% macro a() %}{{ b() }}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}"
    ),
    "macro that branches": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}"
    ),
    "recursive loop": "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "nested loops over filters": (
        "{% for a in range(99999) %}{% set b = range(99999) | map('string') | list %}{% endfor %}"
    ),
    "range of a billion": "{% for a in range(1000000000) %}{% endfor %}",
    "a text that doubles": (
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}"
    ),
    "a text that doubles by plus": (
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}"
    ),
    "a list that doubles": (
        "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}"
    ),
    "a number that squares itself": (
        "{% set n = namespace(s=9) %}{% for i in range(99) %}{% set n.s = n.s * n.s %}{% endfor %}"
    ),
    "a power of powers": "{{ 9 ** 9 ** 9 ** 9 }}",
    "a text times a billion": "{{ 'x' * 1000000000 }}",
    "a billion times a text": "{{ 1000000000 * 'x' }}",
    "a list times a billion": "{{ ([0] * 1000000000) | length }}",
    "a format of a billion": "{{ '%1000000000d' % 1 }}",
    "a format of a width elsewhere": "{{ '%*d' % (1000000000, 1) }}",
    "a format filter of a billion": "{{ '%1000000000d' | format(1) }}",
    "str.format of a billion": "{{ '{:>1000000000}'.format('x') }}",
    "str.format of a width elsewhere": "{{ '{:>{}}'.format('x', 1000000000) }}",
    "centred in a billion": "{{ 'x' | center(1000000000) }}",
    "centred by the method": "{{ 'x'.center(1000000000) }}",
    "padded by the method": "{{ 'x'.ljust(width=1000000000) }}",
    "filled with zeros": "{{ 'x'.zfill(1000000000) }}",
    "tabs of a billion": "{{ '\t'.expandtabs(1000000000) }}",
    "indented by a billion": "{{ 'x\n\ny' | indent(1000000000) }}",
    "JSON indented by a billion": "{{ [[1]] | tojson(indent=1000000000) }}",
    "a batch of a billion": "{{ [1] | batch(1000000000, 'x') | list }}",
    "replacements that multiply": (
        "{% set n = namespace(s='xx') %}{% for i in range(30) %}"
        "{% set n.s = n.s.replace('x', n.s) %}{% endfor %}"
    ),
    "replacements by the filter": (
        "{% set n = namespace(s='xx') %}{% for i in range(30) %}"
        "{% set n.s = n.s | replace('x', n.s) %}{% endfor %}"
    ),
    "joins that multiply": (
        "{% set n = namespace(s='xx') %}{% for i in range(30) %}{% set n.s = n.s.join(n.s) %}{% endfor %}"
    ),
    "an output without end": ("{% set s = 'x' * 1000000 %}{% for a in range(99999) %}{{ s }}{% endfor %}"),
    "includes itself": "{% include 'self' %}",
    "imports itself": "{% import 'self' as s %}",
    "extends itself": "{% extends 'self' %}",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LlamaModel:
    """A vocabulary."""
    made = make_tiny_gguf(tmp_path_factory.mktemp("template") / "tiny.gguf")
    return LlamaModel(str(made.path), made.pin)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end_in_a_typed_error(model: LlamaModel, name: str) -> None:
    """Whoever rendered them would take for ever, or all memory."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.process_time()
    with pytest.raises((InvalidRequest, ConfigError)):
        ChatTemplate(HOSTILE[name], model).apply(MESSAGES)
    assert time.process_time() - started_s < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 300_000


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
        "{% if x %}" * 5000 + "{% endif %}" * 5000,
        "{% for x in y %}" * 300 + "{% endfor %}" * 300,
        "{{ " + "-" * 50_000 + "1 }}",
        "{{ a" + ".b" * 50_000 + " }}",
        "{{ " + "9" * 50_000 + " }}",
    ],
    ids=["parentheses", "conditions", "loops", "signs", "attributes", "digits"],
)
def test_nesting_without_measure_is_refused_when_it_is_compiled(model: LlamaModel, source: str) -> None:
    """Or it renders; Python's own limits do not surface as anything but a typed error."""
    with contextlib.suppress(ConfigError, InvalidRequest):
        ChatTemplate(source, model).apply(MESSAGES)


def test_ordinary_templates_stay_far_below_the_limits(model: LlamaModel) -> None:
    """A thousand long messages with tools take a small part of the budget, and come out as plain Jinja has it."""
    source = (
        "{% for m in messages %}{{ '<' ~ m.role ~ '>' }}{{ m.content | trim }}{% if loop.last %}!{% endif %}"
        "{% for t in tools %}{{ t | tojson(indent=2) }}{% endfor %}{% endfor %}{{ 'x' * 3 + 'y' }}"
    )
    variables = {
        "messages": [{"role": "user", "content": f" {n} " + "word " * 400} for n in range(1000)],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    }
    with budget(200_000):
        rendered = TemplateEnvironment().from_string(source).render(variables)
    plain = Environment(autoescape=False)  # noqa: S701 - no page is made of it
    plain.filters["tojson"] = TemplateEnvironment().filters["tojson"]
    assert rendered == plain.from_string(source).render(variables)


def test_every_rendering_has_a_budget_of_its_own() -> None:
    """What one uses up, the next has again; outside of a budget nothing is counted."""
    template = TemplateEnvironment().from_string("{% for a in range(50) %}.{% endfor %}")
    for _ in range(3):
        with budget(60):
            assert template.render() == "." * 50
    with budget(40), pytest.raises(TooMuch):
        template.render()
    assert template.render() == "." * 50


@given(source=st.text(alphabet="{}%()[]'\"|~*+-. xforin01endset=ab\n", max_size=60))
def test_any_text_is_a_template_or_a_typed_error(source: str, model: LlamaModel) -> None:
    """Nothing else comes out of compiling and rendering."""
    with contextlib.suppress(ConfigError, InvalidRequest):
        ChatTemplate(source, model).apply(MESSAGES)


def test_a_hostile_template_of_a_file_leaves_completions_alone(tmp_path: Path) -> None:
    """The model loads; only what needs its template is refused."""
    made = make_tiny_gguf(tmp_path / "m.gguf", template=HOSTILE["macro that branches"])
    loaded = LlamaModel(str(made.path), made.pin)
    source = loaded.chat_template
    assert source is not None
    with pytest.raises(InvalidRequest):
        ChatTemplate(source, loaded).apply(MESSAGES)
    assert loaded.tokenize("hello", add_special=True, parse_special=False)
    loaded.close()
