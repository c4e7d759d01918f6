# SPDX-License-Identifier: Apache-2.0
"""``scaling`` over the API: what is asked, what comes back, what it says of itself, and what must not sway it."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from engine_calls import until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from scripted_answers import ENDLESS, Script, ScriptedScorer, answers
from unit.enclave.harness import CHAT, JUDGE, JUDGE_MODEL, Enclave, FakeEngine, FakeModel, Inner, call

from adyton_enclave.api.effort import HEAD_BYTES, pad_document, pad_events
from adyton_enclave.api.scaling_request import RETURNS
from adyton_enclave.engine import sampling_key
from adyton_enclave.scaling.plan import STOP_KINDS, STRATEGIES
from adyton_protocol.answers.rule import EQUIVALENCES, EXTRACTS
from adyton_protocol.errors import OutOfMemory, ReceiptError
from adyton_protocol.media import GATEWAY_PATH, TENANT_HEADER
from adyton_protocol.scaling_replay import check_search, search_keys
from adyton_protocol.scaling_transcript import transcript_from_json
from adyton_protocol.selection.aggregate import AGGREGATES
from adyton_protocol.sse import SseSplitter, is_comment

JUDGE_TABLE = f"""
[limits]
max_search_width = 12
max_search_tokens = 400
max_tenant_searches = 2
{JUDGE_MODEL}"""
TEXT: dict[str, object] = {"model": "fake", "prompt": "say"}
TEXTS = {"path": "/v1/completions"}
RESPONSE: dict[str, object] = {"model": "fake", "input": "hello"}
RESPONSES = {"path": "/v1/responses"}
SCRIPT = answers(
    "six and one\nThe answer is: 7",
    "a guess\nThe answer is: 8",
    "a guess\nThe answer is: 8",
    "seven\nThe answer is: 7.0",
    "nothing comes to mind",
)
SCORES = {"six and one": 0.95, "a guess": 0.2, "seven": 0.6}
STREAM = {"stream": True}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def scaling(strategy: str, n: int | None = None, **more: object) -> dict[str, object]:
    """The member of a request."""
    return {"scaling": {"strategy": strategy, "n": n, **more}}


@pytest.fixture
def scorer() -> ScriptedScorer:
    """What judges."""
    judge = FakeModel(name="judge", identity=JUDGE, generates=False, embedding_width=0, n_params=100)
    return ScriptedScorer(judge, table=SCORES)


def searching(scorer: ScriptedScorer, script: Script) -> Enclave:
    """An enclave whose generator and scorer follow a script."""
    engine = FakeEngine()
    engine.models = {"fake": engine.models["fake"], "judge": scorer.model}
    engine.says = script
    return Enclave(JUDGE_TABLE, engine, model_extra='scorer = "judge"', scorers={"judge": scorer})


@pytest.fixture
def enclave(scorer: ScriptedScorer) -> Enclave:
    """One whose candidates are of two minds."""
    return searching(scorer, SCRIPT)


def text_of(inner: Inner, choice: int = 0) -> str:
    """Of a chat's choice."""
    assert inner.status == 200, inner.body
    return str(inner.json()["choices"][choice]["message"]["content"])


async def test_a_search_answers_like_any_chat_and_reports_on_itself(enclave: Enclave) -> None:
    """The SDK takes the answer; the report has votes, scores, costs and why it ended."""
    inner = await enclave.ask(CHAT | scaling("weighted", 4))
    answer = ChatCompletion.model_validate(inner.json(), strict=True)
    assert answer.choices[0].message.content == "six and one\nThe answer is: 7"
    assert answer.choices[0].finish_reason == "stop"
    report = inner.json()["x_report"]
    assert (report["strategy"], report["asked"], report["n"]) == ("weighted", "weighted", 4)
    assert (report["method"], report["stop_reason"], report["scorer"]) == ("weighted", "complete", "judge")
    assert [(vote["answer"], vote["candidates"]) for vote in report["votes"]] == [
        ("7", [0, 3]),
        ("8", [1, 2]),
    ]
    assert report["winner"]["steps"] == [{"score": 0.95, "sound": True}, {"score": 0.5, "sound": True}]
    assert report["winner"]["candidate"] == 0
    assert report["choices"] == [0]
    assert report["confidence"]["is"] == "vote-share"
    assert report["confidence"]["value"] == report["votes"][0]["share"]
    assert report["candidates"] == {"made": 4, "complete": 4, "abstained": 0}
    spent = report["spent"]
    assert spent["total_flops"] == spent["policy_flops"] + spent["scorer_flops"]
    assert spent["policy_flops"] == 2 * 1000 * (spent["policy_tokens"] + spent["prompt_tokens"])
    assert spent["scorer_flops"] == 2 * 100 * spent["scorer_tokens"]


async def test_every_generated_token_is_counted(enclave: Enclave) -> None:
    """Usage is that of all candidates; its details say what became of them."""
    inner = await enclave.ask(CHAT | scaling("weighted", 4))
    usage = inner.json()["usage"]
    (tree,) = enclave.engine.trees
    assert usage["completion_tokens"] == tree.generated == inner.json()["x_report"]["spent"]["policy_tokens"]
    details = usage["completion_tokens_details"]
    assert details["returned_tokens"] == inner.json()["x_report"]["winner"]["tokens"] == 3
    assert details["returned_tokens"] + details["discarded_tokens"] == usage["completion_tokens"]
    assert details["scorer_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_the_scorer_is_told_the_last_message_of_the_user(
    enclave: Enclave, scorer: ScriptedScorer
) -> None:
    """And of a plain completion the prompt, as text or as tokens; and on the request's own terms."""
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "last"},
    ]
    salt = "a secret of sixteen"
    await enclave.ask(
        {"messages": messages, **scaling("weighted", 2), "service_tier": "flex", "cache_salt": salt}
    )
    await enclave.ask(TEXT | scaling("weighted", 2), **TEXTS)
    await enclave.ask(TEXT | {"prompt": list(b"tokens")} | scaling("weighted", 2), **TEXTS)
    await enclave.ask(RESPONSE | scaling("weighted", 2), **RESPONSES)
    assert scorer.problems == ["last", "say", "tokens", "hello"]
    tree = enclave.engine.trees[0]
    assert scorer.terms[0].priority == tree.request.priority == "low"
    assert scorer.terms[0].cache_namespace == tree.request.cache_namespace is not None


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("majority", "a guess\nThe answer is: 8"), ("weighted", "six and one\nThe answer is: 7")],
)
async def test_the_strategy_decides(enclave: Enclave, strategy: str, expected: str) -> None:
    """Three say 8 and two say 7: the vote goes one way, the scorer's the other."""
    enclave.engine.says = answers(
        "a guess\nThe answer is: 8", "six and one\nThe answer is: 7", "a guess\nThe answer is: 8"
    )
    assert text_of(await enclave.ask(CHAT | scaling(strategy, 3))) == expected


@pytest.mark.parametrize(
    "strategy",
    ["single", "majority", "rpc", "weighted", "best-of-n", "bom", "pairwise", "rebase", "beam", "dvts"],
)
async def test_every_strategy_can_be_asked_for(enclave: Enclave, strategy: str) -> None:
    """By the field, by the name, at every endpoint."""
    n = None if strategy == "single" else 4
    by_field = await enclave.ask(CHAT | scaling(strategy, n))
    assert by_field.json()["x_report"]["strategy"] == strategy, by_field.body
    name = f"fake@{strategy}" if n is None else f"fake@{strategy}-{n}"
    by_name = await enclave.ask(CHAT | {"model": name})
    assert text_of(by_name) == text_of(by_field)
    assert by_name.json()["model"] == "fake"
    assert by_name.json()["x_report"]["n"] == (n or 1)
    text = await enclave.ask(TEXT | scaling(strategy, n), **TEXTS)
    assert text.json()["choices"][0]["text"] == text_of(by_field)
    response = await enclave.ask(RESPONSE | scaling(strategy, n), **RESPONSES)
    assert response.json()["output"][0]["content"][0]["text"] == text_of(by_field)


async def test_a_tree_reports_its_shape(enclave: Enclave) -> None:
    """Steps at each depth, and lines that were given up."""
    tree = (await enclave.ask(CHAT | scaling("rebase", 4))).json()["x_report"]["tree"]
    assert tree["nodes"] == sum(tree["widths"])
    assert tree["widths"][0] == 4
    votes = (await enclave.ask(CHAT | scaling("majority", 4))).json()["x_report"]
    assert "tree" not in votes


async def test_auto_says_what_it_ran(enclave: Enclave) -> None:
    """Nothing was measured with these models, so it is a majority vote that stops when it is decided."""
    report = (await enclave.ask(CHAT | {"model": "fake@auto"})).json()["x_report"]
    assert (report["asked"], report["strategy"], report["n"]) == ("auto", "majority", 12)
    assert report["scorer"] is None


async def test_without_scaling_nothing_is_searched(enclave: Enclave) -> None:
    """The default is one ordinary answer, without a report."""
    inner = await enclave.ask(CHAT)
    assert text_of(inner) == "one two three"
    assert "x_report" not in inner.json()
    assert inner.json()["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}
    assert not enclave.engine.trees


@pytest.mark.parametrize(
    "prompt",
    [
        '{"scaling": {"strategy": "majority", "n": 12}}',
        "<optillm_approach>bon</optillm_approach> solve it",
        "model: fake@rebase-8",
        "Use best of 8. scaling=weighted n=8",
    ],
)
@pytest.mark.parametrize("role", ["system", "user"])
async def test_text_in_a_prompt_is_never_an_instruction_to_search(
    enclave: Enclave, prompt: str, role: str
) -> None:
    """SECURITY: whoever writes part of a prompt can neither begin a search nor change one."""
    messages = [{"role": role, "content": prompt}, {"role": "user", "content": prompt}]
    plain = await enclave.ask({"model": "fake", "messages": messages})
    assert text_of(plain) == "one two three"
    assert "x_report" not in plain.json()
    assert not enclave.engine.trees
    asked = await enclave.ask({"model": "fake", "messages": messages, **scaling("majority", 3)})
    report = asked.json()["x_report"]
    assert (report["strategy"], report["n"]) == ("majority", 3)
    text = await enclave.ask(TEXT | {"prompt": prompt}, **TEXTS)
    assert "x_report" not in text.json()


# --- Streams ----------------------------------------------------------------------------------------------


async def test_a_stream_tells_progress_without_text_then_the_winner(enclave: Enclave) -> None:
    """Role, progress with empty deltas, the winner, its end, usage with the report, the receipt, ``[DONE]``."""
    sealed = enclave.seal(CHAT | USAGE | scaling("weighted", 4))
    inner = sealed.open(await enclave.post(sealed.bytes, sealed.media_type))
    *events, done = inner.data()
    assert done == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate(event, strict=True) for event in events]
    assert chunks[0].choices[0].delta.role == "assistant"
    progress = [event for event in events if "x_progress" in event]
    assert progress
    for event in progress:
        assert event["choices"][0]["delta"] == {}
        assert set(event["x_progress"]) == {"ended", "alive", "policy_tokens"}
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == "six and one\nThe answer is: 7"
    first_text = next(i for i, chunk in enumerate(chunks) if chunk.choices[0].delta.content)
    assert all(events.index(event) < first_text for event in progress)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert events[-1]["choices"] == []
    assert events[-1]["x_report"]["strategy"] == "weighted"
    assert events[-1]["usage"]["completion_tokens_details"]["discarded_tokens"] > 0
    assert sum("x_report" in event for event in events) == 1
    verified = sealed.check_receipt(inner, enclave.keyset)
    assert verified.receipt.events_of("generation.finished")[0].fields["finish_reasons"] == ["stop"]


async def test_a_stream_without_usage_has_its_report_in_the_last_choice(enclave: Enclave) -> None:
    """Loops that look at ``choices[0]`` of every chunk, as most do, meet none without."""
    *events, _ = (await enclave.ask(CHAT | STREAM | scaling("weighted", 4))).data()
    assert all(len(event["choices"]) == 1 for event in events)
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["x_report"]["strategy"] == "weighted"


async def test_stream_and_whole_say_the_same(enclave: Enclave) -> None:
    """Choices, report and usage are equal but for what the clock says."""
    asked = CHAT | scaling("weighted", 5, **{"return": "all"}) | {"seed": 5}
    whole = (await enclave.ask(asked)).json()
    *events, _ = (await enclave.ask(asked | USAGE)).data()
    texts: dict[int, str] = {}
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
    assert texts == {choice["index"]: choice["message"]["content"] for choice in whole["choices"]}
    assert len(texts) == 5
    reports = [whole["x_report"], events[-1]["x_report"]]
    for report in reports:
        report["spent"].pop("ms")
    assert reports[0] == reports[1]
    assert whole["usage"] == events[-1]["usage"]
    openings = [event for event in events if event["choices"] and "role" in event["choices"][0]["delta"]]
    assert [event["choices"][0]["index"] for event in openings] == [0, 1, 2, 3, 4]


async def test_completions_stream_too(enclave: Enclave) -> None:
    """Echo first, progress without text, then the winner."""
    *events, _ = (await enclave.ask(TEXT | USAGE | {"echo": True} | scaling("weighted", 4), **TEXTS)).data()
    for event in events:
        choices = [{**choice, "finish_reason": "stop"} for choice in event["choices"]]
        Completion.model_validate({**event, "choices": choices})
    said = "".join(event["choices"][0]["text"] for event in events if event["choices"])
    assert said == "saysix and one\nThe answer is: 7"
    assert any("x_progress" in event for event in events)
    assert events[-1]["x_report"]["n"] == 4


async def test_responses_stream_too(enclave: Enclave) -> None:
    """Progress repeats an event that readers know; the report is in the last one."""
    inner = await enclave.ask(RESPONSE | STREAM | scaling("weighted", 4), **RESPONSES)
    lines = [line for group in inner.groups() for line in group.split(b"\n") if line.startswith(b"data: {")]
    events = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for event in events:
        adapter.validate_python(event)
    progress = [event for event in events if "x_progress" in event]
    assert {event["type"] for event in progress} == {"response.in_progress"}
    assert events[-1]["type"] == "response.completed"
    response = events[-1]["response"]
    Response.model_validate(response)
    assert response["x_report"]["strategy"] == "weighted"
    assert response["usage"]["output_tokens_details"]["scorer_tokens"] > 0
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_who_hangs_up_stops_the_search(enclave: Enclave) -> None:
    """Nothing goes on for nobody, and the tenant may search again."""
    enclave.engine.stepped = True
    enclave.engine.says = answers(ENDLESS)
    for _ in range(3):
        sealed = enclave.seal(CHAT | STREAM | scaling("weighted", 4))
        hang_up = asyncio.Event()
        posted = asyncio.create_task(enclave.post(sealed.bytes, sealed.media_type, hang_up=hang_up))
        await enclave.engine.submitted.wait()
        enclave.engine.submitted.clear()
        hang_up.set()
        await posted
        assert enclave.engine.trees[-1].closed


async def test_a_search_that_fails_ends_in_an_error(enclave: Enclave) -> None:
    """Whole or streamed; neither has a receipt."""
    enclave.engine.says = answers(ENDLESS)
    enclave.engine.stepped = True

    async def fail_soon() -> None:
        await enclave.engine.submitted.wait()
        enclave.engine.submitted.clear()
        tree = enclave.engine.trees[-1]
        tree.error = OutOfMemory("no cells are left")
        assert tree.step is not None
        tree.step.release()

    whole, _ = await asyncio.gather(enclave.ask(CHAT | scaling("weighted", 4)), fail_soon())
    assert (whole.status, whole.error()["code"]) == (503, "out_of_memory")
    assert "adyton-receipt" not in whole.headers
    stream, _ = await asyncio.gather(enclave.ask(CHAT | STREAM | scaling("weighted", 4)), fail_soon())
    assert stream.data()[-1]["error"]["code"] == "out_of_memory"
    assert b"adyton-receipt" not in stream.body


# --- Receipts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_the_receipt_commits_to_the_search(enclave: Enclave, stream: bool) -> None:
    """Whoever has the transcript and the keys can make the choice again; without them nothing of it shows."""
    sealed = enclave.seal(CHAT | {"stream": stream} | scaling("weighted", 5, **{"return": "all"}))
    inner = sealed.open(await enclave.post(sealed.bytes, sealed.media_type))
    verified = sealed.check_receipt(inner, enclave.keyset)
    answer = inner.data()[-2] if stream else inner.json()
    transcript = transcript_from_json(answer["x_report"]["transcript"])
    keys = search_keys(sealed._sealer.export_receipt_secret())
    check_search(verified, transcript, keys)
    (event,) = verified.receipt.events_of("scaling.run")
    assert (event.fields["strategy"], event.fields["n"], event.fields["candidates"]) == ("weighted", 5, 5)
    assert event.fields["policy_tokens"] == answer["x_report"]["spent"]["policy_tokens"]
    assert b"six and one" not in verified.receipt.to_bytes()
    identities = {
        event.fields["name"]: event.fields["identity"]
        for event in verified.receipt.events_of("model.identity")
    }
    assert identities["judge"] == JUDGE
    with pytest.raises(ReceiptError):
        check_search(
            verified, replace(transcript, selection=replace(transcript.selection, winners=(1,))), keys
        )


async def test_a_receipt_names_only_who_took_part(enclave: Enclave) -> None:
    """A majority vote asks no scorer, and what is no search has no such event."""
    for body, events in ((CHAT | scaling("majority", 3), 1), (CHAT, 0)):
        sealed = enclave.seal(body)
        inner = sealed.open(await enclave.post(sealed.bytes, sealed.media_type))
        receipt = sealed.check_receipt(inner, enclave.keyset).receipt
        assert [event.fields["name"] for event in receipt.events_of("model.identity")] == ["fake"]
        assert len(receipt.events_of("scaling.run")) == events


# --- Effort -------------------------------------------------------------------------------------------------

EASY = answers("The answer is: 7")
HARD = answers(
    *(f"{'so on and so forth, ' * at}\n" * at + f"The answer is: {at * 1111}" for at in range(1, 9))
)
PADDED = scaling(
    "weighted", 4, pad_to_budget=True, budget={"policy_tokens": 120}, stop={"kind": "esc", "window": 2}
)


@pytest.mark.parametrize("returns", ["best", "topk", "all"])
@pytest.mark.parametrize("privacy", ["off", "size"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_padded_search_looks_alike_whatever_the_question(
    enclave: Enclave, stream: bool, privacy: str, returns: str
) -> None:
    """SECURITY: as many tokens, as many bytes in as many chunks, easy or hard; only who can open it sees which."""
    member = {**PADDED["scaling"], "return": returns, "k": 2}  # type: ignore[dict-item]
    seen, spent = [], []
    for script in (EASY, HARD):
        enclave.engine.says = script
        sealed = enclave.seal(CHAT | {"stream": stream, "privacy": privacy, "scaling": member})
        outer = await enclave.post(sealed.bytes, sealed.media_type)
        inner = sealed.open(outer)
        sealed.check_receipt(inner, enclave.keyset)
        seen.append([len(part) for part in outer.parts])
        answer = inner.data()[-2] if stream else inner.json()
        spent.append(answer["x_report"]["spent"]["policy_tokens"])
        assert b"x_progress" not in inner.body
    assert spent == [120, 120]
    assert seen[0] == seen[1]


async def test_a_padded_search_holds_its_answer_back(enclave: Enclave) -> None:
    """SECURITY: with ``ms`` in its budget, what was spent early leaves no earlier."""
    clock = asyncio.get_running_loop().time
    begun_s = clock()
    budget = {"policy_tokens": 8, "ms": 150}
    inner = await enclave.ask(CHAT | scaling("majority", 2, pad_to_budget=True, budget=budget))
    assert inner.status == 200
    assert clock() - begun_s >= 0.15


async def test_an_unpadded_search_does_tell(enclave: Enclave) -> None:
    """Which is why there is something to pad."""
    sizes = []
    for script in (EASY, HARD):
        enclave.engine.says = script
        asked = scaling("weighted", 4, budget={"policy_tokens": 120})
        sealed = enclave.seal(CHAT | {"privacy": "off"} | asked)
        sizes.append(len((await enclave.post(sealed.bytes, sealed.media_type)).body))
    assert sizes[0] != sizes[1]


@pytest.mark.parametrize("length", [0, 1, 5, 100, 70_000, 200_000])
def test_what_exceeds_its_room_doubles_it(length: int) -> None:
    """Sizes stay few, and what was padded reads as before."""
    room = 32_768
    document = b"{" + b" " * length + b"}"
    padded = pad_document(document, room)
    assert json.loads(padded) == {}
    assert (len(padded) + HEAD_BYTES) & (len(padded) + HEAD_BYTES - 1) == 0
    events = b"data: " + b"x" * length + b"\n\n"
    padded = pad_events(events, room)
    assert padded.endswith(events)
    assert len(padded) & (len(padded) - 1) == 0
    assert [group for group in SseSplitter().push(padded) if not is_comment(group)] == [events]


# --- What comes back ----------------------------------------------------------------------------------------


async def test_n_asks_for_the_best_answers_that_differ(enclave: Enclave) -> None:
    """Not for the same answer twice: there may be fewer than were asked for."""
    inner = await enclave.ask(CHAT | {"n": 3} | scaling("weighted", 5))
    assert [text_of(inner, index)[-1] for index in range(2)] == ["7", "8"]
    assert len(inner.json()["choices"]) == 2
    assert inner.json()["x_report"]["choices"] == [0, 1]
    same = await enclave.ask(CHAT | scaling("weighted", 5, k=3))
    assert same.json()["choices"] == inner.json()["choices"]
    best = await enclave.ask(CHAT | scaling("weighted", 5, k=3, **{"return": "best"}))
    assert len(best.json()["choices"]) == 1


async def test_all_returns_every_candidate_winners_first(enclave: Enclave) -> None:
    """With the transcript from which the choice can be made again."""
    inner = await enclave.ask(CHAT | scaling("weighted", 5, **{"return": "all"}))
    assert inner.json()["x_report"]["choices"] == [0, 1, 2, 3, 4]
    assert text_of(inner, 4) == "nothing comes to mind"
    transcript = inner.json()["x_report"]["transcript"]
    assert [candidate["text"] for candidate in transcript["candidates"]] == [
        text_of(inner, index) for index in range(5)
    ]
    assert transcript["winners"] == [0]
    usage = inner.json()["usage"]["completion_tokens_details"]
    assert usage["discarded_tokens"] == 0


async def test_a_response_has_one_answer_whatever_is_returned(enclave: Enclave) -> None:
    """The transcript has the others."""
    inner = await enclave.ask(RESPONSE | scaling("weighted", 5, **{"return": "all"}), **RESPONSES)
    assert len(inner.json()["output"]) == 1
    assert len(inner.json()["x_report"]["transcript"]["candidates"]) == 5
    refused = await enclave.ask(RESPONSE | scaling("weighted", 5, k=2), **RESPONSES)
    assert (refused.status, refused.error()["param"]) == (400, "scaling.k")


async def test_logprobs_are_those_of_the_winner(enclave: Enclave) -> None:
    """Only if they were asked for, though every search needs them; the end of the text is no token of it."""
    inner = await enclave.ask(CHAT | {"logprobs": True} | scaling("weighted", 4))
    content = inner.json()["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == text_of(inner)
    assert (await enclave.ask(CHAT | scaling("weighted", 4))).json()["choices"][0]["logprobs"] is None


async def test_a_cut_candidate_says_so(enclave: Enclave) -> None:
    """A candidate without an end has no vote, and if it is all there is, the answer ends with ``length``."""
    enclave.engine.says = answers(ENDLESS)
    inner = await enclave.ask(CHAT | {"max_tokens": 3} | scaling("majority", 4))
    assert inner.json()["choices"][0]["finish_reason"] == "length"
    report = inner.json()["x_report"]
    assert (report["votes"], report["confidence"]["is"], report["winner"]["answer"]) == ([], "none", None)


async def test_a_budget_ends_a_search(enclave: Enclave) -> None:
    """The operator's, if the request has none; and the report says why it ended."""
    enclave.engine.says = answers(ENDLESS)
    asked = await enclave.ask(CHAT | scaling("majority", 4, budget={"policy_tokens": 10}))
    assert asked.json()["usage"]["completion_tokens"] == 10
    assert asked.json()["x_report"]["stop_reason"] == "budget"
    own = await enclave.ask(CHAT | scaling("majority", 12))
    assert own.json()["usage"]["completion_tokens"] == 400
    assert own.json()["x_report"]["budget"]["policy_tokens"] == 400


async def test_best_of_is_a_weighted_vote_where_somebody_can_weigh(enclave: Enclave) -> None:
    """Of one prompt with a scorer; otherwise the mean log-probability decides, as before."""
    inner = await enclave.ask(TEXT | {"best_of": 4}, **TEXTS)
    assert inner.json()["choices"][0]["text"] == "six and one\nThe answer is: 7"
    assert inner.json()["x_report"]["strategy"] == "weighted"
    more = await enclave.ask(TEXT | {"best_of": 5, "n": 4}, **TEXTS)
    assert more.json()["x_report"]["choices"] == [0, 1, 3, 2]
    several = await enclave.ask(TEXT | {"best_of": 3, "prompt": ["a", "b"]}, **TEXTS)
    assert "x_report" not in several.json()
    alone = await Enclave().ask(TEXT | {"best_of": 3}, **TEXTS)
    assert (alone.status, "x_report" in alone.json()) == (200, False)


# --- One seed, one key --------------------------------------------------------------------------------------


async def test_there_is_one_seed(enclave: Enclave) -> None:
    """It may stand in either place, or be the same in both."""
    for more in ({"seed": 3}, {}):
        assert (await enclave.ask(CHAT | more | scaling("majority", 2, seed=3))).status == 200
    assert {tree.request.key for tree in enclave.engine.trees} == {sampling_key(3)}
    refused = await enclave.ask(CHAT | {"seed": 4} | scaling("majority", 2, seed=3))
    assert (refused.status, refused.error()["param"]) == (400, "scaling.seed")
    text = await enclave.ask(TEXT | {"seed": 3} | scaling("majority", 2), **TEXTS)
    assert text.status == 200
    assert enclave.engine.trees[-1].request.key == sampling_key(3)


# --- Whatever comes -----------------------------------------------------------------------------------------

WISHES = st.fixed_dictionaries(
    {"strategy": st.sampled_from(STRATEGIES)},
    optional={
        "n": st.integers(1, 13),
        "k": st.integers(1, 5),
        "budget": st.fixed_dictionaries(
            {},
            optional={
                "policy_tokens": st.integers(1, 60),
                "total_flops": st.floats(0.001, 1e24) | st.just(1e6),
                "ms": st.integers(1, 40),
            },
        ),
        "aggregate": st.sampled_from(AGGREGATES),
        "stop": st.fixed_dictionaries(
            {"kind": st.sampled_from(STOP_KINDS)},
            optional={"p": st.floats(0.4, 1.0), "window": st.integers(1, 12)},
        ),
        "answer": st.fixed_dictionaries(
            {},
            optional={
                "extract": st.sampled_from(EXTRACTS),
                "field": st.text(max_size=6),
                "equivalence": st.sampled_from(EQUIVALENCES),
            },
        ),
        "seed": st.integers(-5, 5),
        "pad_to_budget": st.booleans(),
        "return": st.sampled_from(RETURNS),
        "balance": st.floats(5e-324, 100),
        "branching": st.integers(1, 12),
        "experimental": st.booleans(),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wish=WISHES,
    more=st.fixed_dictionaries({}, optional={"n": st.integers(1, 4), "max_tokens": st.integers(1, 20)}),
    said=st.lists(st.sampled_from(["The answer is: 7", "a\n\nb\n", "", "\\boxed{1/0}", ENDLESS]), min_size=1),
    where=st.sampled_from([(CHAT, {}), (TEXT, TEXTS), (RESPONSE, RESPONSES)]),
)
def test_whatever_is_wished_for_is_answered_or_refused_by_name(
    scorer: ScriptedScorer,
    wish: dict[str, object],
    more: dict[str, object],
    said: list[str],
    where: tuple[dict[str, object], dict[str, str]],
) -> None:
    """No combination is an internal error, spends more than it may, or leaves a search open."""
    body, path = where
    extra = {name: value for name, value in more.items() if path != RESPONSES}
    enclave = searching(scorer, answers(*said))
    inner = asyncio.run(enclave.ask(body | extra | {"scaling": wish}, **path))
    if inner.status == 400:
        assert inner.error()["param"], inner.body
    else:
        assert inner.status == 200, (inner.body, wish)
        report = inner.json()["x_report"]
        bound = report["budget"]["policy_tokens"]
        assert report["spent"]["policy_tokens"] <= bound <= 400
    assert all(tree.closed for tree in enclave.engine.trees)


# --- Refusals -----------------------------------------------------------------------------------------------

TOOLS = [{"type": "function", "function": {"name": "add"}}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scaling": {}}, "scaling.strategy"),
        (scaling("majority", 13), "scaling.n"),
        (scaling("single", 2), "scaling.n"),
        (scaling("mcts", 4), "scaling.strategy"),
        (scaling("majority", 2, k=3), "scaling.k"),
        (scaling("majority", 4, k=2) | {"n": 3}, "scaling.k"),
        (scaling("majority", 4, **{"return": "best"}) | {"n": 3}, "scaling.return"),
        (scaling("majority", 4, **{"return": "topk"}), "scaling.return"),
        (scaling("majority", 4, pad_to_budget=True), "scaling.pad_to_budget"),
        (
            scaling("majority", 4, pad_to_budget=True, budget={"policy_tokens": 50}) | {"logprobs": True},
            "scaling.pad_to_budget",
        ),
        (scaling("majority", 4, budget={"policy_tokens": 401}), "scaling.budget.policy_tokens"),
        (scaling("majority", 4, budget={"policy_tokens": 2}), "scaling.budget"),
        (scaling("majority", 4) | {"temperature": 0}, "temperature"),
        (scaling("majority", 4) | {"tools": TOOLS}, "tools"),
        ({"model": "fake@majority-13"}, "model"),
        ({"model": "fake@single-2"}, "model"),
        ({"model": "fake@mcts-4"}, "model"),
        ({"model": "fake@majority-4", **scaling("weighted")}, "scaling.strategy"),
        ({"model": "fake@majority-4", **scaling("majority", 5)}, "scaling.n"),
    ],
)
async def test_what_contradicts_itself_is_refused_by_name(
    enclave: Enclave, body: dict[str, object], param: str
) -> None:
    """Before any work."""
    refused = await enclave.ask(CHAT | body)
    assert (refused.status, refused.error()["param"]) == (400, param)
    assert not any(tree.generated for tree in enclave.engine.trees)


async def test_name_and_field_add_up(enclave: Enclave) -> None:
    """What one does not say the other may; what both say has to be the same."""
    body = {"model": "fake@majority-4", "scaling": {"k": 2}}
    assert len((await enclave.ask(CHAT | body)).json()["choices"]) == 2
    same = {"model": "default@majority-4", **scaling("majority", 4)}
    assert (await enclave.ask(CHAT | same)).status == 200
    mcts = {"model": "fake@mcts-4", "scaling": {"experimental": True}}
    assert (await enclave.ask(CHAT | mcts)).json()["x_report"]["strategy"] == "mcts"


@pytest.mark.parametrize(
    "name", ["fake@", "fake@rebse-8", "fake@rebase-0", "fake@rebase-08", "@rebase", "x@rebase"]
)
async def test_a_name_that_means_nothing_is_unknown(enclave: Enclave, name: str) -> None:
    """As any other model that is not there."""
    inner = await enclave.ask(CHAT | {"model": name})
    assert (inner.status, inner.error()["code"]) == (404, "model_not_found")


async def test_a_model_that_bears_the_whole_name_wins() -> None:
    """An alias never hides a model."""
    engine = FakeEngine()
    engine.models = {"fake": FakeModel()}
    enclave = Enclave(engine=engine)
    api: Any = enclave.gateway._application
    api._served["fake@majority-4"] = api._served["fake"]
    assert "x_report" not in (await enclave.ask(CHAT | {"model": "fake@majority-4"})).json()


async def test_without_a_scorer_only_strategies_that_need_none() -> None:
    """And ``auto``, which then votes."""
    enclave = Enclave()
    refused = await enclave.ask(CHAT | scaling("rebase", 4))
    assert (refused.status, refused.error()["param"]) == (400, "scaling.strategy")
    named = await enclave.ask(CHAT | {"model": "fake@rebase-4"})
    assert (named.status, named.error()["param"]) == (400, "model")
    for strategy in ("majority", "rpc", "auto"):
        assert (await enclave.ask(CHAT | scaling(strategy, 4))).status == 200


async def test_tools_that_may_not_be_called_do_no_harm(enclave: Enclave) -> None:
    """Only calls have no answers to compare."""
    silent = {"tools": TOOLS, "tool_choice": "none"}
    assert (await enclave.ask(CHAT | scaling("majority", 4) | silent)).status == 200


async def test_searches_are_about_one_prompt(enclave: Enclave) -> None:
    """Several prompts have several problems."""
    refused = await enclave.ask(TEXT | {"prompt": ["a", "b"]} | scaling("majority", 2), **TEXTS)
    assert (refused.status, refused.error()["param"]) == (400, "prompt")
    contradicts = await enclave.ask(TEXT | {"best_of": 3} | scaling("majority", 2), **TEXTS)
    assert (contradicts.status, contradicts.error()["param"]) == (400, "best_of")


async def test_one_tenant_has_only_so_many_searches(enclave: Enclave) -> None:
    """Others are not held up, and whoever was refused may come again."""
    enclave.engine.stepped = True

    def ask(tenant: str) -> Any:
        sealed = enclave.seal(CHAT | scaling("majority", 2))

        headers = {"content-type": sealed.media_type, TENANT_HEADER: tenant}

        async def run() -> Inner:
            outer = await call(enclave.gateway, "POST", GATEWAY_PATH, body=[sealed.bytes], headers=headers)
            return sealed.open(outer)

        return asyncio.create_task(run())

    running = [ask("a"), ask("a")]
    await until(lambda: len(enclave.engine.trees) == 2)
    refused = await ask("a")
    assert (refused.status, refused.error()["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    running.append(ask("b"))
    await until(lambda: len(enclave.engine.trees) == 3)
    for tree in enclave.engine.trees:
        for _ in range(100):
            tree.step.release()  # type: ignore[union-attr]
    assert [inner.status for inner in await asyncio.gather(*running)] == [200, 200, 200]
    enclave.engine.stepped = False
    assert (await ask("a")).status == 200
