# SPDX-License-Identifier: Apache-2.0
"""Pages for people: what they hold, and what hostile evidence cannot make of them."""

import json
from pathlib import Path

import httpx
import pytest
from command_line import Run
from hypothesis import example, given
from hypothesis import strategies as st
from memory_appliance import MODEL, MemoryAppliance, Sent, policy
from page_reader import Reader, check_self_contained, read

from adyton.html import Markup, element, facts, listed, page, section, table
from adyton.terminal import SIMULATED_BANNER
from adyton.verification_page import Verification, verification_page
from adyton_attestation.check_words import explain_checks
from adyton_attestation.checks import Check, CheckName
from adyton_protocol.errors import AppraisalError
from adyton_protocol.media import ENDORSEMENTS_PATH

HOSTILE = st.text() | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='x",
        "</style><script>1</script>",
        "</title><base href=//evil.example>",
        "&lt;script&gt;",
        "\u202egnp.exe",
        "\ud800",
        "<!--",
        "]]>",
        "javascript:alert(1)",
        "x" * 20_000,
    ]
)


def skeleton(reader: Reader) -> list[str]:
    """The elements of a page without its words."""
    return reader.tags


def verification(words: str, *, simulated: bool = False) -> str:
    """A refusal, with the same words wherever words of others may stand."""
    checks = tuple(
        Check(number=number, name=name.value, verdict="fail", detail=words)
        for number, name in enumerate(CheckName, start=1)
    )
    error = AppraisalError("models", expected=words, actual=words)
    vars(error)["check"] = "models"
    return verification_page(
        Verification(
            url=words,
            policy=policy(),
            at_s=1_800_000_000,
            build=words,
            simulated=simulated,
            checks=explain_checks(checks, policy(), 1_800_000_000),
            error=error,
        )
    )


PLAIN = skeleton(read(verification("plain")))


@given(words=HOSTILE)
@example(words="<script>alert(1)</script>")
def test_words_out_of_hostile_evidence_stay_words(words: str) -> None:
    """Whatever an enclave, a host or a policy says, the page has the same elements, and no reference to anything."""
    assert skeleton(check_self_contained(verification(words))) == PLAIN


@given(words=HOSTILE)
def test_every_part_of_a_page_escapes(words: str) -> None:
    """Headings, facts, lists, tables and titles: a string is text wherever it stands."""

    def made(text: str) -> str:
        return page(
            text,
            section(text, facts([(text, text)]), listed([text, text]), element("p", text, text)),
            table(text, [text], [(text, element("span", text))]),
            simulated=True,
        )

    assert skeleton(check_self_contained(made(words))) == skeleton(read(made("plain")))


@given(words=st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=200))
def test_words_are_shown_as_they_are(words: str) -> None:
    """Escaping loses nothing that can be printed."""
    shown = "".join(c for c in words if c.isprintable())
    assert "".join(read(element("p", words).text).words) == shown


def test_words_that_steer_are_dropped() -> None:
    """Neither control nor direction characters reach a page, and a long text does not hide the rest."""
    assert element("p", "a\u202e\x1b\u2066b\x00c") == Markup("<p>abc</p>")
    assert len(element("p", "x" * 100_000).text) < 20_000


def test_a_simulation_cannot_be_missed_on_a_page() -> None:
    """It stands in the title, above everything, below everything, and as a frame; a real page has none of it."""
    text = verification("plain", simulated=True)
    words = read(text).words
    assert text.count(SIMULATED_BANNER) == 2
    assert any(word.startswith("SIMULATED: ") for word in words)
    assert text.index(SIMULATED_BANNER) < text.index("<main>")
    assert '<body class="simulated">' in text
    real = verification("plain")
    assert SIMULATED_BANNER not in real
    assert 'class="simulated"' not in real


def test_an_accepted_verification_as_a_page(run: Run, where: tuple[str, ...], tmp_path: Path) -> None:
    """Verdict, platform, policy, keys, models, release, dated endorsements, and every check with its rule."""
    file = tmp_path / "verification.html"
    url = where[1]
    outcome = run("verify", url, *where[2:], "--html", file)
    assert outcome.code == 0
    text = file.read_text("utf-8")
    reader = check_self_contained(text)
    words = " ".join(reader.words)
    assert SIMULATED_BANNER in words
    for title in ("Platform", "Release", "Keys", "Models", "Endorsements", "Checks"):
        assert f"<h2>{title}</h2>" in text
    assert "Accepted as SIMULATED" in words
    assert MODEL.identity in words
    assert policy().digest() in words
    assert "tcb_info" in words
    assert "in force" in words
    for name in CheckName:
        assert f"<code>{name.value}</code>" in text
    assert "the enclave is one of these builds" in words
    assert 'lang="en"' in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_a_refused_verification_as_a_page(run: Run, url: str, tmp_path: Path) -> None:
    """The page says which check refused, and shows what the evidence claims as a claim."""
    document, file = tmp_path / "policy.toml", tmp_path / "verification.html"
    document.write_text(policy().to_toml())
    assert run("verify", "--url", url, "--policy", document, "--html", file).code == 1
    text = file.read_text("utf-8")
    words = " ".join(check_self_contained(text).words)
    assert "REFUSED by the check evidence-type" in words
    assert "Nothing of it is believed" in words
    assert MODEL.identity in words
    assert "Nothing was sent to the appliance" in words


def test_evidence_that_cannot_be_read_has_a_page(
    run: Run, where: tuple[str, ...], memory: MemoryAppliance, tmp_path: Path
) -> None:
    """Nonsense instead of endorsements is refused, and the page says so."""

    def nonsense(_appliance: MemoryAppliance, sent: Sent) -> httpx.Response | None:
        served = sent.path == ENDORSEMENTS_PATH
        return httpx.Response(200, content=b'{"tcb_info": "<script>"}') if served else None

    memory.intercept = nonsense
    file = tmp_path / "verification.html"
    assert run("verify", *where, "--html", file).code == 1
    words = " ".join(check_self_contained(file.read_text("utf-8")).words)
    assert "REFUSED before any check could be made" in words
    assert "cannot be read" in words


def test_a_page_that_cannot_be_written_is_unusable_input(
    run: Run, where: tuple[str, ...], tmp_path: Path
) -> None:
    """It exits with 2 and says which file."""
    outcome = run("verify", *where, "--html", tmp_path / "nowhere" / "page.html")
    assert outcome.code == 2
    assert "page.html" in outcome.err


@pytest.mark.parametrize("name", list(CheckName))
def test_every_check_is_explained(name: CheckName) -> None:
    """Each has a question and at least one rule, relaxed or not."""
    check = Check(number=list(CheckName).index(name) + 1, name=name.value, verdict="pass", detail="x")
    (explained,) = explain_checks((check,), policy(), 1_800_000_000)
    assert explained.question.endswith("?")
    assert explained.rules
    assert all(explained.rules)


def test_the_command_line_shows_the_rule_below_each_check(run: Run, where: tuple[str, ...]) -> None:
    """What was found, then the question and what it was held to; in JSON, too."""
    out = run("verify", *where).out
    assert out.count("Rule: ") == len(CheckName)
    assert "Are debuggers kept out? Rule: DEBUG is off" in out
    document = json.loads(run("verify", *where, "--json").out)
    assert document["version"] == 1
    assert all(check["rules"] for check in document["checks"])


def test_a_brief_verification_has_one_line_for_what_passed(run: Run, where: tuple[str, ...]) -> None:
    """Every check, and the rule of those alone that did not pass."""
    out = run("verify", *where, "--brief").out
    lines = [line for line in out.splitlines() if line[:3].strip().isdigit()]
    assert [line.split()[2] for line in lines] == [name.value for name in CheckName]
    assert out.count("Rule: ") == sum(line.split()[1] != "pass" for line in lines)
