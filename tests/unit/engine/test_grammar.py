# SPDX-License-Identifier: Apache-2.0
"""Grammars: every answer that ends is a document of its schema, and no schema costs more than it should."""

import asyncio
import contextlib
import json
import re
import time
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
from engine_calls import answers, request, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_gguf import make_tiny_gguf

from adyton_enclave.api.json_schema import check_schema, schema_rule
from adyton_enclave.engine import Engine, EngineConfig, ModelSpec, SamplingParams
from adyton_enclave.engine.grammar import GrammarCompiler, GrammarMatcher
from adyton_protocol.errors import InvalidRequest, QueueFull

SECRET = "SECRET-7f3a"


class Bytes:
    """A vocabulary of bytes, a few words, a control token and two ends of text."""

    pieces = (*(bytes([i]) for i in range(256)), b'{"', b'": ', b", ", b'"}', b"", b"", b"")
    n_vocab = len(pieces)
    control_tokens = {"<|end|>": 260, "[CALL]": 261, "<|eot|>": 262}  # noqa: RUF012
    eog = frozenset({260, 262})

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return list(text.encode())


VOCABULARY = Bytes()


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    """Over the vocabulary of bytes."""
    return GrammarCompiler(VOCABULARY)


def allowed(matcher: GrammarMatcher) -> list[int]:
    """Token ids of the mask."""
    bits = np.unpackbits(matcher.allowed().view(np.uint8), bitorder="little", count=VOCABULARY.n_vocab)
    return np.flatnonzero(bits).tolist()


def wander(matcher: GrammarMatcher, choices: st.DataObject | np.random.Generator, limit: int) -> bytes | None:
    """Draw allowed tokens at random to the end of text; None when the limit or the grammar's limits come first."""
    text = b""
    for _ in range(limit):
        ids = allowed(matcher)
        if not ids:
            return None
        token_id = (
            int(choices.choice(ids))
            if isinstance(choices, np.random.Generator)
            else choices.draw(st.sampled_from(ids))
        )
        matcher.accept(token_id)
        if token_id in VOCABULARY.eog:
            return text
        text += VOCABULARY.pieces[token_id]
    return None


def finite(text: str) -> float:
    """A number of JSON may be too large for a float, which is no fault of the document."""
    return max(-1e308, min(1e308, float(text)))


LEAVES = st.sampled_from(
    [
        {"type": "integer"}, {"type": "integer", "minimum": -3, "maximum": 40}, {"type": "boolean"},
        {"type": "null"}, {"type": "number"}, {"type": "string", "maxLength": 5},
        {"type": "string", "pattern": "^[a-c]{1,4}$"}, {"enum": ["a", 1, None, {"x": []}]}, {"const": 'é\n"'},
        {"type": "string", "format": "date"}, {"type": ["integer", "null"]},
    ]
)  # fmt: skip
NAMES = st.sampled_from(["a", "b", "c", "é", 'q"', "\\"])


def _object(inner: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
    def build(properties: dict[str, object], required: list[str], more: bool) -> dict[str, object]:
        return {
            "type": "object",
            "properties": properties,
            "required": sorted(set(required) & set(properties)),
            "additionalProperties": {"type": "boolean"} if more else False,
        }

    return st.builds(
        build, st.dictionaries(NAMES, inner, max_size=4), st.lists(NAMES, max_size=4), st.booleans()
    )


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        _object(inner)
        | st.builds(
            lambda items, low: {"type": "array", "items": items, "minItems": low, "maxItems": low + 2},
            inner,
            st.integers(0, 2),
        )
        | st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3))
    ),
    max_leaves=6,
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_whatever_ends_is_a_document_of_the_schema(
    compiler: GrammarCompiler, schema: dict[str, object], seed: int
) -> None:
    """Random tokens within the mask: if the end of text is reached, the text is JSON and validates."""
    grammar = compiler.compile_now("start: " + schema_rule(check_schema(schema, "s")), param="s")
    text = wander(grammar.matcher(), np.random.default_rng(seed), 300)
    if text is not None:
        jsonschema_rs.validator_for(schema).validate(json.loads(text, parse_float=finite))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_end_is_allowed_exactly_when_the_document_is_complete(
    compiler: GrammarCompiler, data: st.DataObject
) -> None:
    """Before that no end of text is on offer, and both ends are when it is."""
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "integer"}}},
        "required": ["a"],
        "additionalProperties": False,
    }
    matcher = compiler.compile_now("start: " + schema_rule(schema), param="s").matcher()
    text = b""
    for _ in range(40):
        ids = allowed(matcher)
        try:
            json.loads(text)
            complete = True
        except ValueError:
            complete = False
        assert set(ids) & VOCABULARY.eog == (VOCABULARY.eog if complete else frozenset())
        if complete:
            return
        token_id = data.draw(st.sampled_from(ids))
        matcher.accept(token_id)
        text += VOCABULARY.pieces[token_id]


def test_forks_go_separate_ways(compiler: GrammarCompiler) -> None:
    """A fork starts where its parent stood and neither moves the other, nor the next answer's start."""
    grammar = compiler.compile_now('start: "ab" | "ac" | "x"', param="s")
    first = grammar.matcher()
    first.accept(ord("a"))
    second = first.fork()
    first.accept(ord("b"))
    assert allowed(second) == [ord("b"), ord("c")]
    assert allowed(first) == sorted(VOCABULARY.eog)
    assert allowed(grammar.matcher()) == [ord("a"), ord("x")]


def test_a_token_that_was_not_allowed_ends_everything(compiler: GrammarCompiler) -> None:
    """No token follows, the end of text included: a broken document is never taken for a whole one."""
    matcher = compiler.compile_now('start: "ab"', param="s").matcher()
    matcher.accept(ord("z"))
    assert allowed(matcher) == []


def prop(**schema: object) -> dict[str, object]:
    """An object with one property."""
    return {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False}


def nested(depth: int) -> dict[str, object]:
    """An array of arrays."""
    schema: dict[str, object] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


REFUSED: dict[str, object] = {
    "look-around": prop(type="string", pattern="^(?=SECRET-7f3a)b$"),
    "back-reference": prop(type="string", pattern="^(SECRET-7f3a)\\1$"),
    "bad pattern": prop(type="string", pattern="^(SECRET-7f3a[a$"),
    "bad type": prop(type=SECRET),
    "bad format": prop(type="string", format=SECRET),
    "unknown keyword": prop(type="array", uniqueItems=True),
    "negation": {"not": {"const": SECRET}},
    "impossible": {"type": "object", "properties": {SECRET: False}, "required": [SECRET]},
    "remote reference": {"$ref": "http://127.0.0.1:9/SECRET-7f3a"},
    "file reference": {"$ref": "file:///etc/passwd"},
    "dangling reference": {"$ref": "#/$defs/SECRET-7f3a"},
    "reference to itself": {"$ref": "#"},
    "references in a circle": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "overlapping oneOf": {"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]},
    "huge bound": prop(type="integer", minimum=-(10**400)),
    "infinite bound": prop(type="number", minimum=float("inf")),
    "exploding product": {
        "allOf": [
            {"anyOf": [{"type": "object", "properties": {f"k{i}_{j}": {"type": "string"}}} for j in range(4)]}
            for i in range(12)
        ]
    },
    "huge multiple": prop(type="integer", multipleOf=982451653),
    "too deep": nested(40),
    "too long": prop(enum=[f"{SECRET}{i}" for i in range(20_000)]),
    "grammar options": {"x-guidance": {"whitespace_pattern": "(a+)+"}, "type": "object"},
    "joined patterns": {"allOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{i}}}"} for i in range(1, 17)]},
    "joined multiples": {"allOf": [{"type": "integer", "multipleOf": i} for i in (2, 3, 5, 7, 11, 13, 17)]},
    "joined large multiples": {"allOf": [{"type": "integer", "multipleOf": i} for i in (97, 101, 103, 107)]},
    "many multiples": {"type": "array", "prefixItems": [{"type": "integer", "multipleOf": i} for i in range(900, 999)]},
    "chained patterns": {
        "$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}", "pattern": f"(a|b)*a(a|b){{{i}}}"} for i in range(16)}
        | {"d16": {"type": "string"}},
        "$ref": "#/$defs/d0",
    },
    "a thousand millions": prop(type="string", pattern="^a{2000000000}$"),
    "nested counts": prop(type="string", pattern="^((((((a{9}){9}){9}){9}){9}){9}){9}$"),
    "product of counts": prop(type="string", pattern="^(x{1000}){1000}$"),
    "long pattern": prop(type="string", pattern="^" + "[a-z0-9]?" * 9000 + "$"),
    "many properties": {"type": "object", "properties": {f"p{i}": True for i in range(3000)}},
    "no schema": [SECRET],
    "false": False,
    "endless pattern": {"type": "object", "patternProperties": {"^(?!SECRET-7f3a)": {"type": "integer"}}},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_enforced_is_refused_without_quoting_it(compiler: GrammarCompiler, name: str) -> None:
    """The field is named and the reason is ours; nothing that the caller wrote comes back."""
    with pytest.raises(InvalidRequest) as caught:
        compiler.compile_now(
            "start: " + schema_rule(check_schema(REFUSED[name], "response_format")), param="response_format"
        )
    assert caught.value.param == "response_format"
    assert not re.search("SECRET|passwd|127|http", str(caught.value))
    assert caught.value.__cause__ is None


COSTLY: dict[str, dict[str, object]] = {
    "long string": prop(type="string", maxLength=10**9),
    "very long string": prop(type="string", minLength=10**6),
    "many items": prop(type="array", items={"type": "integer"}, minItems=10**6),
    "nested quantifiers": prop(type="string", pattern="^(a+)+b$"),
    "ambiguous repetition": prop(type="string", pattern="^(a|aa)*c$"),
    "many states": prop(type="string", pattern="^.*a.{200}$"),
    "product of counts": prop(type="string", pattern="^((x{100}y?){100}){2}$"),
    "classes and counts": prop(type="string", pattern="^(([a-z]{1,20}[0-9]?){1,20}){1,20}$"),
    "four patterns": {"allOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{i}}}"} for i in (3, 9, 17, 29)]},
    "four multiples": {"allOf": [{"type": "integer", "multipleOf": i} for i in (5, 7, 11, 13)]},
    "unicode classes": prop(type="string", pattern="^\\p{L}{1,500}$"),
    "many properties": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1000)}},
    "many alternatives": {"anyOf": [prop(type="string", pattern=f"^a{{{i}}}$") for i in range(500)]},
    "doubling definitions": {
        "$defs": {
            **{f"d{i}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)},
            "d30": {"type": "integer"},
        },
        "$ref": "#/$defs/d0",
    },
    "endless object": {
        "$defs": {"n": {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}, "required": ["c"]}},
        "$ref": "#/$defs/n",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_costly_schemas_stay_within_bounds(compiler: GrammarCompiler, name: str) -> None:
    """Compiled or refused within seconds; each step is short, and what grows too complex allows nothing more."""
    start = time.process_time()
    try:
        grammar = compiler.compile_now("start: " + schema_rule(check_schema(COSTLY[name], "s")), param="s")
    except InvalidRequest:
        return
    finally:
        assert time.process_time() - start < 5
    matcher = grammar.matcher()
    rng = np.random.default_rng(0)
    slowest = 0.0
    for _ in range(200):
        start = time.process_time()
        ids = allowed(matcher)
        if not ids:
            break
        matcher.accept(int(rng.choice(ids)))
        slowest = max(slowest, time.process_time() - start)
    assert slowest < 0.5


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["#", "a{3,}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type", "properties", "items", "pattern", "patternProperties", "multipleOf", "allOf", "anyOf",
                    "$ref", "$defs", "enum", "format", "minimum", "required", "x-guidance", "additionalProperties",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(schema=ANYTHING, lenient=st.booleans())
def test_any_json_compiles_or_is_refused(compiler: GrammarCompiler, schema: object, lenient: bool) -> None:
    """Whatever stands where a schema should: a grammar, or the one error, and nothing worse."""
    with contextlib.suppress(InvalidRequest):
        compiler.compile_now("start: " + schema_rule(check_schema(schema, "s"), lenient=lenient), param="s")


def test_the_library_is_silent(compiler: GrammarCompiler, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing of a schema, good or bad, is written to the process's outputs."""
    for schema in (
        prop(const=SECRET),
        prop(type=SECRET),
        prop(type="string", pattern="^((x{100}y?){100}){2}$"),
    ):
        try:
            grammar = compiler.compile_now("start: " + schema_rule(schema), param="s")
            wander(grammar.matcher(), np.random.default_rng(0), 50)
        except InvalidRequest:
            pass
    caught = capfd.readouterr()
    assert caught.out + caught.err == ""


@pytest.fixture(scope="module")
def tiny_that_ends(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """A model with random weights that sometimes draws the end of text."""
    model = make_tiny_gguf(tmp_path_factory.mktemp("grammar") / "ends.gguf", ends=True)
    return ModelSpec(name="tiny", path=str(model.path), pin=model.pin, n_ctx=512)


async def test_answers_of_a_model_follow_the_grammar(tiny_that_ends: ModelSpec) -> None:
    """Through the engine, several choices at once: what stops is valid, what runs out of tokens says ``length``."""
    schema = prop(type="array", items={"enum": ["x", "yy", 3]}, maxItems=4)
    engine = Engine(EngineConfig(threads=1, n_ctx_total=4096), [tiny_that_ends]).start()
    try:
        model = engine.models["tiny"]
        constraint = await model.compile_grammar("start: " + schema_rule(schema), param="response_format")
        sampling = SamplingParams(temperature=2.0)
        choices = await answers(engine, request(n=8, max_tokens=60, sampling=sampling, constraint=constraint))
        validator = jsonschema_rs.validator_for(schema)
        for choice in choices:
            if choice.reason == "stop":
                validator.validate(json.loads(choice.text))
        assert "stop" in {choice.reason for choice in choices}
    finally:
        engine.stop()


async def test_a_grammar_that_becomes_too_complex_is_an_error(tiny_that_ends: ModelSpec) -> None:
    """Not an answer that looks complete; the engine and other requests go on."""
    engine = Engine(EngineConfig(threads=1, n_ctx_total=4096), [tiny_that_ends]).start()
    try:
        model = engine.models["tiny"]
        rule = schema_rule(prop(type="string", pattern="^((x{100}){100}){100}$"))
        constraint = await model.compile_grammar("start: " + rule, param="response_format")
        plain = asyncio.create_task(answers(engine, request(max_tokens=20)))
        with pytest.raises(InvalidRequest) as caught:
            await answers(engine, request(max_tokens=400, constraint=constraint))
        assert (await plain)[0].text
        assert caught.value.param == "response_format"
    finally:
        engine.stop()


async def test_compiling_leaves_the_event_loop_alone(tmp_path: Path) -> None:
    """While a costly schema is compiled, the event loop turns."""
    compiler = GrammarCompiler(VOCABULARY)
    task = asyncio.create_task(
        compiler.compile("start: " + schema_rule(COSTLY["many alternatives"]), param="s")
    )
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    await task
    compiler.close()
    assert turns > 3


async def test_a_compilation_that_nothing_ends_is_left_behind() -> None:
    """Should a schema get past every limit: its request fails, others are served, and at most two such threads run."""
    schema = {"allOf": [{"type": "string", "pattern": f"(a|b)*a(a|b){{{i}}}"} for i in range(1, 13)]}
    compiler = GrammarCompiler(VOCABULARY, max_compile_s=0.05)
    compiler.compile_now('start: "x"', param="s")
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            await compiler.compile("start: " + schema_rule(schema), param="s")
    with pytest.raises(QueueFull):
        await compiler.compile('start: "x"', param="s")
    await until(lambda: not compiler._abandoned)
    await compiler.compile('start: "x"', param="s")
    compiler.close()
