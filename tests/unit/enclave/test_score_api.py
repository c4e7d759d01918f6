# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/score``: what goes in, what comes out, what is refused, and what the receipt says."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.enclave.harness import CHAT, IDENTITY, JUDGE, JUDGE_MODEL, Enclave, FakeEngine, FakeModel

from adyton_enclave.api.score_request import MAX_SCORED_CHARS, parse_score_call
from adyton_enclave.api.types import RequestLimits
from adyton_enclave.config import parse_configuration
from adyton_enclave.engine import Usage
from adyton_enclave.scoring import ScoringTerms
from adyton_protocol.digests import commitment_matches, jcs, opening_key
from adyton_protocol.errors import ConfigError, ContextOverflow, EngineError, InvalidRequest, QueueFull
from adyton_protocol.receipt import SCORED_ANSWER_LABEL, SCORES_LABEL

PATH = {"path": "/v1/score"}
LIMITS = RequestLimits(max_candidates=1, max_prompts=1, max_steps=3)
JUDGE_TABLE = f"""
[limits]
max_steps = 3
{JUDGE_MODEL}"""
ASKED = {"model": "judge", "problem": "2 + 2 = ?", "steps": ["2 + 2 = 4", "The answer is: 5"]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["model", "problem", "steps", "privacy", "service_tier", "deadline_ms", "user", "metadata", "other"]
)


@dataclass
class FakeScorer:
    """Scores by length."""

    name: str = "judge"
    threshold: float = 0.25
    asked: list[tuple[str, tuple[str, ...], ScoringTerms]] = field(default_factory=list)
    refusal: EngineError | None = None

    def split(self, text: str) -> list[str]:
        return [line for line in text.split("\n") if line.strip()]

    async def score(
        self, problem: str, steps: Sequence[str], terms: ScoringTerms
    ) -> tuple[tuple[float, ...], Usage]:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append((problem, tuple(steps), terms))
        tokens = len(problem) + sum(map(len, steps))
        return tuple(1 / len(step) for step in steps), Usage(prompt_tokens=tokens, completion_tokens=0)


@pytest.fixture
def scorer() -> FakeScorer:
    """What judges."""
    return FakeScorer()


@pytest.fixture
def enclave(scorer: FakeScorer) -> Enclave:
    """An enclave with a scripted generator and a scripted scorer."""
    engine = FakeEngine()
    judge = FakeModel(name="judge", identity=JUDGE, generates=False, embedding_width=0)
    engine.models = {"judge": judge, **engine.models}
    return Enclave(JUDGE_TABLE, engine, model_extra='scorer = "judge"', scorers={"judge": scorer})


async def test_each_step_gets_a_score_and_the_answer_their_aggregates(
    enclave: Enclave, scorer: FakeScorer
) -> None:
    """Steps come back with their scores in order; nothing else of the request does."""
    inner = await enclave.ask(ASKED, **PATH)
    body = inner.json()
    assert (inner.status, body["object"], body["model"]) == (200, "score", "judge")
    scores = [1 / 9, 1 / 16]
    assert body["steps"] == [
        {"index": index, "text": text, "score": score, "sound": False}
        for index, (text, score) in enumerate(zip(ASKED["steps"], scores, strict=True))
    ]
    assert body["aggregate"] == {
        "last": scores[1], "min": scores[1], "prod": scores[0] * scores[1], "mean": sum(scores) / 2
    }  # fmt: skip
    assert body["usage"] == {"prompt_tokens": 34, "total_tokens": 34}
    ((problem, steps, terms),) = scorer.asked
    assert (problem, list(steps)) == (ASKED["problem"], ASKED["steps"])
    assert (terms.timeout_s, terms.priority) == (600, "normal")


async def test_a_text_is_cut_by_the_scorers_own_rule(enclave: Enclave, scorer: FakeScorer) -> None:
    """One text is as good as its steps; more steps than the operator allows are refused, however they come."""
    inner = await enclave.ask({**ASKED, "steps": "a\n\nbbb\n"}, **PATH)
    assert [(step["text"], step["sound"]) for step in inner.json()["steps"]] == [("a", True), ("bbb", True)]
    for many in ("a\nb\nc\nd", ["a", "b", "c", "d"]):
        refused = await enclave.ask({**ASKED, "steps": many}, **PATH)
        assert (refused.status, refused.error()["param"]) == (400, "steps")
    assert len(scorer.asked) == 1


async def test_a_generator_is_judged_by_its_scorer(enclave: Enclave) -> None:
    """Its name, the scorer's, ``default`` and no name lead to the same; other names to nobody."""
    for name in ("judge", "fake", "default", None):
        inner = await enclave.ask({**ASKED, "model": name}, **PATH)
        assert inner.json()["model"] == "judge"
    unknown = await enclave.ask({**ASKED, "model": "other"}, **PATH)
    assert (unknown.status, unknown.error()["code"]) == (404, "model_not_found")
    # The scorer answers no chat, and is not the default of one.
    assert (await enclave.ask({**CHAT, "model": "judge"})).error()["code"] == "model_unsuitable"
    assert (await enclave.ask({**CHAT, "model": "default"})).json()["model"] == "fake"
    alone = Enclave()
    assert (await alone.ask({**ASKED, "model": "fake"}, **PATH)).error()["code"] == "model_unsuitable"
    assert (await alone.ask({**ASKED, "model": "default"}, **PATH)).error()["code"] == "model_not_found"


async def test_the_receipt_names_the_scorer_and_commits_to_what_it_judged(enclave: Enclave) -> None:
    """Problem with steps, and scores, can be shown one without the other; neither stands in the receipt."""
    sealed = enclave.seal(ASKED, **PATH)
    inner = sealed.open(await enclave.post(sealed.bytes, sealed.media_type))
    receipt = sealed.check_receipt(inner, enclave.keyset).receipt
    assert receipt.endpoint == "/v1/score"
    (identity,) = receipt.events_of("model.identity")
    assert dict(identity.fields) == {"name": "judge", "identity": JUDGE}
    (scored,) = receipt.events_of("answer.scored")
    assert (scored.fields["scorer"], scored.fields["steps"]) == ("judge", 2)
    secret = sealed._sealer.export_receipt_secret()
    shown = {
        "answer_commitment": (SCORED_ANSWER_LABEL, [ASKED["problem"], ASKED["steps"]]),
        "scores_commitment": (SCORES_LABEL, [step["score"] for step in inner.json()["steps"]]),
    }
    for name, (label, value) in shown.items():
        commitment = scored.fields[name]
        assert isinstance(commitment, str)
        assert commitment_matches(commitment, opening_key(secret, label), jcs(value))
        assert not commitment_matches(commitment, opening_key(secret, label), jcs([value]))
    assert b"The answer" not in receipt.to_bytes()


async def test_both_identities_stand_in_the_keyset_and_in_the_list(enclave: Enclave) -> None:
    """A client sees before it asks who will judge, and by which identity."""
    listed = {model.name: model.identity for model in enclave.keyset.extension.models}
    assert listed == {"judge": JUDGE, "fake": IDENTITY}
    models = (await enclave.ask(method="GET", path="/v1/models")).json()["data"]
    shown = {model["id"]: (model["role"], model.get("scorer"), model["identity"]) for model in models}
    assert shown == {"judge": ("scorer", None, JUDGE), "fake": ("generator", "judge", IDENTITY)}


async def test_terms_are_the_callers_within_the_operators(enclave: Enclave, scorer: FakeScorer) -> None:
    """A deadline shortens the operator's limit; flex waits behind others; what is ignored is named."""
    asked = {**ASKED, "deadline_ms": 1500, "service_tier": "flex", "user": "me", "metadata": {}}
    inner = await enclave.ask(asked, **PATH)
    assert inner.headers["adyton-warning"] == "ignored: user, metadata"
    assert (scorer.asked[0][2].timeout_s, scorer.asked[0][2].priority) == (1.5, "low")


@pytest.mark.parametrize(
    "refusal", [ContextOverflow("too long", param="steps"), QueueFull("full", retry_after_s=3.0)]
)
async def test_what_the_engine_refuses_is_a_sealed_error(
    enclave: Enclave, scorer: FakeScorer, refusal: EngineError
) -> None:
    """With the status of its class."""
    scorer.refusal = refusal
    inner = await enclave.ask(ASKED, **PATH)
    assert (inner.status, inner.error()["code"]) == (refusal.status, refusal.code.replace("-", "_"))


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"problem": None}, "problem"),
        ({"problem": " "}, "problem"),
        ({"problem": 1}, "problem"),
        ({"problem": "x" * (MAX_SCORED_CHARS + 1)}, "problem"),
        ({"steps": None}, "steps"),
        ({"steps": []}, "steps"),
        ({"steps": ""}, "steps"),
        ({"steps": ["a", "\n"]}, "steps"),
        ({"steps": ["a", 1]}, "steps"),
        ({"steps": {"0": "a"}}, "steps"),
        ({"steps": ["x" * (MAX_SCORED_CHARS + 1)]}, "steps"),
        ({"privacy": "none"}, "privacy"),
        ({"service_tier": "fast"}, "service_tier"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, object], param: str) -> None:
    """Nothing is coerced, and nothing is overlooked."""
    with pytest.raises(InvalidRequest) as raised:
        parse_score_call(json.dumps({**ASKED, **changes}).encode(), LIMITS)
    assert raised.value.param == param
    assert "xxx" not in str(raised.value)


@given(st.dictionaries(FIELDS, JSON) | JSON)
def test_any_body_is_a_request_or_a_typed_error(body: object) -> None:
    """Hostile JSON becomes a request within bounds, or an InvalidRequest."""
    with contextlib.suppress(InvalidRequest):
        call = parse_score_call(json.dumps(body).encode(), LIMITS)
        assert call.problem.strip()
        assert call.steps
        assert all(step.strip() for step in call.steps) or isinstance(call.steps, str)


def _with(extra: str, judge: str = JUDGE_TABLE) -> bytes:
    fake = f"""
[[model]]
name = "fake"
path = "fake.gguf"
content = "{"sha256:" + "b" * 64}"
weights = "{"sha256:" + "c" * 64}"
n_ctx = 256
{extra}
"""
    return ('version = 1\nattester = "gramine"\n' + judge + fake).encode()


def test_the_configuration_of_a_scorer_is_complete_or_refused() -> None:
    """It pins adapter and head; only generators have scorers, and only such that are there."""
    judge, fake = parse_configuration(_with('scorer = "judge"')).models
    assert (judge.role, fake.scorer) == ("scorer", "judge")
    assert judge.scorer_files is not None
    assert judge.scorer_files.parts.head is None
    headed = JUDGE_TABLE + 'head = "h.gguf"\nhead_digest = "sha256:' + "e" * 64 + '"\n'
    with_head = parse_configuration(_with("", headed)).models[0].scorer_files
    assert with_head is not None
    assert with_head.parts.head == "sha256:" + "e" * 64
    for data in (
        _with('scorer = "fake"'),
        _with('scorer = "nobody"'),
        _with('role = "embedding"\nscorer = "judge"'),
        _with('adapter = "a.toml"'),
        _with("", JUDGE_TABLE.replace('adapter = "judge.toml"\n', "")),
        _with("", JUDGE_TABLE.replace("adapter_digest", "adapter_sha256")),
        _with("", JUDGE_TABLE + 'head = "h.gguf"\n'),
        _with("", JUDGE_TABLE + "embeddings = true\n"),
        _with("", JUDGE_TABLE + 'scorer = "judge"\n'),
    ):
        with pytest.raises(ConfigError):
            parse_configuration(data)
