# SPDX-License-Identifier: Apache-2.0
"""Can an enclave serve this model, and what should its operator know: one finding for each question.

A `fail` keeps a model out of the catalog, a `warn` is for the operator to judge. Findings come from the header alone;
a trial (`trial`) adds what only running the model shows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from adyton_enclave.engine import EngineConfig
from adyton_enclave.engine.chat_template import MAX_TEMPLATE_CHARS
from adyton_enclave.engine.invariance import ARCHITECTURES, read_weights, why_inexact
from adyton_models.gguf_facts import EMBEDDING, ModelFacts
from adyton_models.memory_estimate import MemoryEstimate, estimate_memory
from adyton_models.template_trial import Try, try_apart

Verdict = Literal["pass", "warn", "fail", "skip"]

PERMISSIVE: Final = (
    "Apache-2.0", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "BSL-1.0", "0BSD", "Unlicense",
    "CC0-1.0", "CC-BY-4.0", "OpenMDW-1.0",
)  # fmt: skip
"""Licences, as SPDX writes them, that let anybody use a model for anything."""

_SPDX: Final = {name.lower(): name for name in PERMISSIVE}
_NAMELESS_LICENSES: Final = frozenset({"", "other", "unknown", "none"})
_MIB: Final = 1024 * 1024
_MEMORY_INFO: Final = Path("/proc/meminfo")
_EPC_SIZES: Final = "/sys/devices/system/node/node*/x86/sgx_total_bytes"
_SPECIAL_TOKENS: Final = ("bos", "eos", "unknown", "padding")
_WORD_PIECE_IDS: Final = {"bos": 101, "seperator": 102}
"""What llama.cpp takes where a word-piece vocabulary names none; it aborts when there is no such token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer to one question."""

    name: str
    verdict: Verdict
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the operator asked for.

    Attributes:
        n_ctx: Most tokens of prompt and answer together.
        license: SPDX expression, when the operator names one.
        generates: It is to answer.
        embeddings: It is to make vectors.
        config: Settings of the engine, for memory and reproducibility.
    """

    n_ctx: int
    license: str | None
    generates: bool
    embeddings: bool
    config: EngineConfig


def license_of(facts: ModelFacts) -> str | None:
    """What the file says about its licence; None when it says nothing."""
    for key in ("general.license", "general.license.name"):
        text = (facts.text(key) or "").strip()
        if text.lower() not in _NAMELESS_LICENSES:
            return spdx(text)
    return None


def spdx(text: str) -> str:
    """A licence as SPDX writes it, where it is one of :data:`PERMISSIVE`; anything else as it is."""
    return _SPDX.get(text.lower(), text)


def memory_of(facts: ModelFacts, wishes: Wishes) -> MemoryEstimate:
    """What serving the model as wished takes."""
    return estimate_memory(
        facts,
        wishes.config,
        generates=wishes.generates,
        embeds_tokens=wishes.n_ctx if wishes.embeddings else 0,
    )


def examine(facts: ModelFacts, wishes: Wishes, *, try_template: Try = try_apart) -> list[Finding]:
    """All findings that the header allows, in the order of a report; the chat template is tried apart from us."""
    findings = [
        _files(facts),
        _architecture(facts, wishes),
        _context(facts, wishes),
        _tokenizer(facts),
        _license(facts, wishes),
        _reproducible(facts, wishes),
        _memory(facts, wishes),
        _epc(facts, wishes),
    ]
    if wishes.generates:
        findings.insert(4, _chat_template(facts, try_template))
    return findings


def judge_trial(outcome: Mapping[str, Any], estimate: MemoryEstimate, *, generates: bool) -> list[Finding]:
    """Findings from what :func:`adyton_models.trial.run_trial` returned."""
    if "error" in outcome:
        return [Finding(name="trial load", verdict="fail", detail=str(outcome["error"]))]
    used = outcome["allocated_bytes"]
    share = used / estimate.model_bytes - 1
    what = "decoded" if generates else f"made a vector of {outcome.get('width')}"
    findings = [
        Finding(
            name="trial load",
            verdict="pass",
            detail=f"loaded in {outcome['load_s']:.1f} s and {what}; {used / _MIB:,.0f} MiB were taken, "
            f"{abs(share):.0%} {'more' if share > 0 else 'less'} than estimated",
        )
    ]
    if not generates:
        return findings
    if not outcome["ends"]:
        findings.append(
            Finding(name="end of text", verdict="fail", detail="no token of the vocabulary ends an answer")
        )
    if not outcome["round_trip"]:
        findings.append(
            Finding(
                name="tokenizer round trip",
                verdict="warn",
                detail="a plain text does not come back unchanged; answers may lose white space or accents",
            )
        )
    if outcome["template"] is not None:
        findings.append(
            Finding(
                name="chat template in use",
                verdict="warn",
                detail=f"chat requests will fail: {outcome['template']}",
            )
        )
    return findings


def _files(facts: ModelFacts) -> Finding:
    types = ", ".join(facts.types) or "no matrices"
    parts = f" in {len(facts.paths)} files" if len(facts.paths) > 1 else ""
    return Finding(
        name="file",
        verdict="pass",
        detail=f"{facts.size_bytes / _MIB:,.1f} MiB{parts}, {len(facts.tensors)} tensors, "
        f"{facts.parameters / 1e6:,.1f} million numbers in {types}",
    )


def _architecture(facts: ModelFacts, wishes: Wishes) -> Finding:
    name = "architecture"
    if not facts.architecture:
        return Finding(name=name, verdict="fail", detail="general.architecture is missing: this is no model")
    if not facts.of_arch("block_count") or EMBEDDING not in facts.tensors:
        return Finding(
            name=name,
            verdict="fail",
            detail=f"{facts.architecture} without {facts.architecture}.block_count or {EMBEDDING}: no text model "
            "(adapters, projectors and vocabularies are not served)",
        )
    reason = why_not_generate(facts) if wishes.generates else None
    if reason is not None:
        advice = "; as an embedding model it may do: --only-embeddings" if "one token" in reason else ""
        return Finding(name=name, verdict="fail", detail=f"{facts.architecture}: {reason}{advice}")
    layers = facts.of_arch("block_count")
    return Finding(
        name=name,
        verdict="pass",
        detail=f"{facts.architecture}, {layers} layers, width {facts.of_arch('embedding_length')}",
    )


def why_not_generate(facts: ModelFacts) -> str | None:
    """Why the engine cannot keep such a model's past, as far as the header tells; the engine asks llama.cpp itself."""
    if facts.of_arch("attention.sliding_window") > 0:
        return "it attends through a sliding window"
    if any(
        facts.has_arch_key(key) for key in ("ssm.", "wkv.", "shortconv.", "kda.", "rescale_every_n_layers")
    ):
        return "it keeps its past in a recurrent state"
    causal = facts.model.metadata.get(f"{facts.architecture}.attention.causal")
    if (causal is not None and causal.number is False) or any(
        name.startswith("enc.") for name in facts.tensors
    ):
        return "it does not write one token after the other"
    return None


def _context(facts: ModelFacts, wishes: Wishes) -> Finding:
    trained = facts.n_ctx_train
    if not trained:
        return Finding(
            name="context", verdict="fail", detail="the file does not say for how many tokens it was trained"
        )
    if wishes.n_ctx > trained:
        return Finding(
            name="context",
            verdict="fail",
            detail=f"{wishes.n_ctx} tokens are asked for, and it was trained for {trained}: at most --n-ctx {trained}",
        )
    return Finding(name="context", verdict="pass", detail=f"{wishes.n_ctx} of {trained} tokens")


def _tokenizer(facts: ModelFacts) -> Finding:
    name = "tokenizer"
    kind, tokens = facts.text("tokenizer.ggml.model"), facts.texts("tokenizer.ggml.tokens")
    if kind is None or not tokens:
        return Finding(name=name, verdict="fail", detail="the file holds no vocabulary")
    problems = []
    rows = facts.tensors[EMBEDDING].shape[1:] if EMBEDDING in facts.tensors else ()
    if rows and rows[0] != len(tokens):
        problems.append(f"{len(tokens)} tokens, but {rows[0]} rows of {EMBEDDING}")
    problems += [
        f"{key} has another length than the vocabulary"
        for key in ("token_type", "scores")
        if facts.count(f"tokenizer.ggml.{key}") not in {None, len(tokens)}
    ]
    defaults = _WORD_PIECE_IDS if kind == "bert" else {}
    for special in dict.fromkeys((*_SPECIAL_TOKENS, *defaults)):
        token_id = facts.number(f"tokenizer.ggml.{special}_token_id", defaults.get(special, -1))
        if token_id >= len(tokens):
            problems.append(f"{special}_token_id is {token_id}, and there are {len(tokens)} tokens")
    if kind == "gpt2" and not facts.count("tokenizer.ggml.merges"):
        problems.append("a byte-level BPE without merges")
    if problems:
        return Finding(name=name, verdict="fail", detail="; ".join(problems))
    doubles = len(tokens) - len(set(tokens))
    if doubles:
        return Finding(
            name=name, verdict="warn", detail=f"{kind}, {len(tokens)} tokens, {doubles} of them twice"
        )
    return Finding(name=name, verdict="pass", detail=f"{kind}, {len(tokens)} tokens")


def _chat_template(facts: ModelFacts, try_template: Try) -> Finding:
    name = "chat template"
    source = facts.text("tokenizer.chat_template")
    if source is None:
        return Finding(
            name=name,
            verdict="warn",
            detail="none: only /v1/completions will work, chat requests are refused",
        )
    if len(source) > MAX_TEMPLATE_CHARS:
        return Finding(name=name, verdict="fail", detail=f"longer than {MAX_TEMPLATE_CHARS} characters")
    problem = try_template(source, _special(facts, "bos"), _special(facts, "eos"))
    if problem is not None:
        return Finding(name=name, verdict="fail", detail=problem)
    return Finding(name=name, verdict="pass", detail=f"{len(source)} characters, takes a user message")


def _special(facts: ModelFacts, name: str) -> str:
    """The text of a special token; empty without one."""
    tokens = facts.texts("tokenizer.ggml.tokens") or ()
    token_id = facts.number(f"tokenizer.ggml.{name}_token_id", -1)
    return tokens[token_id].decode("utf-8", "replace") if 0 <= token_id < len(tokens) else ""


def _license(facts: ModelFacts, wishes: Wishes) -> Finding:
    stated = license_of(facts)
    chosen = stated if wishes.license is None else wishes.license
    if chosen is None:
        return Finding(
            name="licence",
            verdict="fail",
            detail="the file names none: find out under which terms you may serve it, and say so with --license SPDX",
        )
    if wishes.license is not None and stated is not None and spdx(wishes.license) != stated:
        return Finding(
            name="licence", verdict="warn", detail=f"you say {wishes.license}, the file says {stated}"
        )
    if spdx(chosen) not in PERMISSIVE:
        return Finding(
            name="licence",
            verdict="warn",
            detail=f"{chosen} is not among the permissive licences: read what it allows before you serve others",
        )
    return Finding(name="licence", verdict="pass", detail=spdx(chosen))


def _reproducible(facts: ModelFacts, wishes: Wishes) -> Finding:
    reason = why_inexact(read_weights(facts.model), wishes.config)
    if reason is None:
        return Finding(
            name="reproducible", verdict="pass", detail="answers are the same bits whatever shares the batch"
        )
    measured = ", ".join(sorted(ARCHITECTURES))
    advice = f" (measured: {measured})" if "architecture" in reason else ""
    return Finding(
        name="reproducible", verdict="warn", detail=f"no: {reason}{advice}; /v1/models will say so"
    )


def _memory(facts: ModelFacts, wishes: Wishes) -> Finding:
    estimate = memory_of(facts, wishes)
    cells = wishes.config.n_ctx_total if wishes.generates else wishes.n_ctx
    detail = (
        f"{estimate.total_bytes / _MIB:,.0f} MiB: weights {estimate.weights / _MIB:,.0f}, cache of {cells} tokens in "
        f"{wishes.config.kv_type_k}/{wishes.config.kv_type_v} {estimate.kv_cache / _MIB:,.0f}, computation "
        f"{estimate.compute / _MIB:,.0f}, logits and vocabulary {estimate.outputs / _MIB:,.0f}, process "
        f"{estimate.process / _MIB:,.0f}"
    )
    available = available_bytes()
    if available is not None and estimate.total_bytes > available:
        detail += f"; this machine has {available / _MIB:,.0f} MiB available"
        return Finding(name="memory", verdict="warn", detail=detail)
    return Finding(name="memory", verdict="pass", detail=detail)


def available_bytes(read: Callable[[], str] = lambda: _MEMORY_INFO.read_text(encoding="ascii")) -> int | None:
    """Memory that the machine could give to a process now; None where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in read().splitlines() if ":" in line)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _epc(facts: ModelFacts, wishes: Wishes) -> Finding:
    size = memory_of(facts, wishes).enclave_bytes
    hint = f'a real enclave needs sgx.enclave_size = "{size // _MIB}M" or more'
    installed = epc_bytes()
    if installed is None:
        return Finding(name="EPC", verdict="skip", detail=f"{hint}; this machine has no SGX to compare with")
    if size > installed:
        return Finding(
            name="EPC",
            verdict="warn",
            detail=f"{hint}, and the EPC holds {installed // _MIB} MiB: pages would be swapped, which is slow",
        )
    return Finding(name="EPC", verdict="pass", detail=f"{hint}; the EPC holds {installed // _MIB} MiB")


def epc_bytes(root: Path = Path("/")) -> int | None:
    """Enclave page cache of all processors together; None without SGX (Linux 5.17 and newer tell)."""
    sizes = [int(path.read_text(encoding="ascii")) for path in root.glob(_EPC_SIZES.lstrip("/"))]
    return sum(sizes) or None
