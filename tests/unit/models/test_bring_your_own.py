# SPDX-License-Identifier: Apache-2.0
"""`add` and `remove`: each reason to refuse a file, what is only warned of, and that memory is estimated well."""

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from raw_gguf import EditableModel, number, split_files, text, texts
from tiny_bert import CLS, SEP, make_tiny_bert
from tiny_gguf import make_tiny_gguf

from adyton_enclave.engine import EngineConfig
from adyton_enclave.engine.chat_template import MAX_TEMPLATE_CHARS
from adyton_models.catalog import default_catalog, read_catalog
from adyton_models.cli import main
from adyton_models.gguf_facts import read_facts
from adyton_models.memory_estimate import TOLERANCE, estimate_memory
from adyton_models.model_files import pin_of
from adyton_models.suitability import (
    Wishes,
    available_bytes,
    epc_bytes,
    examine,
    judge_trial,
)
from adyton_models.template_trial import try_apart, why_unrenderable
from adyton_models.trial import run_trial
from adyton_protocol.errors import ModelFileError
from adyton_protocol.gguf_types import ValueType
from adyton_protocol.sealed_model import MAGIC

SHIPPED = default_catalog().parent / read_catalog(default_catalog()).entry(None).file
Edit = Callable[[EditableModel], None]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tiny model that can be served, with a licence."""
    path = make_tiny_gguf(tmp_path_factory.mktemp("byo") / "tiny.gguf", ends=True).path
    model = EditableModel.parse(path.read_bytes())
    model.metadata["general.license"] = text("apache-2.0")
    return model.to_bytes()


def edited(data: bytes, path: Path, *edits: Edit) -> Path:
    """The model with changes, as a file."""
    model = EditableModel.parse(data)
    for edit in edits:
        edit(model)
    path.write_bytes(model.to_bytes())
    return path


def put(key: str, value: object) -> Edit:
    """Set a key of the metadata; a number is a uint32, None takes it away."""

    def edit(model: EditableModel) -> None:
        match value:
            case None:
                model.metadata.pop(key)
            case str():
                model.metadata[key] = text(value)
            case bool():
                model.metadata[key] = number(value, ValueType.BOOL)
            case int():
                model.metadata[key] = number(value)
            case list():
                model.metadata[key] = texts(value)

    return edit


def without_tensor(name: str) -> Edit:
    """Take a tensor away."""
    return lambda model: model.tensors.pop(name) and None


def wishes(**changes: object) -> Wishes:
    """What an operator asks for who asks for nothing special."""
    defaults = {
        "n_ctx": 512, "license": None, "generates": True, "embeddings": False, "config": EngineConfig(n_ctx_total=2048),
    }  # fmt: skip
    return Wishes(**{**defaults, **changes})  # type: ignore[arg-type]


def verdicts(path: Path, **changes: object) -> dict[str, tuple[str, str]]:
    """Verdict and detail of each finding from the header."""
    found = examine(read_facts(path), wishes(**changes), try_template=why_unrenderable)
    return {each.name: (each.verdict, each.detail) for each in found}


def test_a_model_that_can_be_served_has_nothing_to_mend(plain: bytes, tmp_path: Path) -> None:
    """Every finding about the file passes; machine-dependent ones are no refusal."""
    found = verdicts(edited(plain, tmp_path / "m.gguf"))
    machine = {"memory", "EPC"}
    assert {verdict for name, (verdict, _) in found.items() if name not in machine} == {"pass"}
    assert all(found[name][0] != "fail" for name in machine)


@pytest.mark.parametrize(
    ("edit", "name", "detail"),
    [
        (put("general.architecture", None), "architecture", "general.architecture is missing"),
        (put("llama.block_count", None), "architecture", "no text model"),
        (without_tensor("token_embd.weight"), "architecture", "no text model"),
        (put("llama.attention.sliding_window", 64), "architecture", "sliding window"),
        (put("llama.ssm.state_size", 16), "architecture", "recurrent state"),
        (put("llama.attention.causal", False), "architecture", "only-embeddings"),
        (put("llama.context_length", None), "context", "does not say"),
        (put("llama.context_length", 256), "context", "at most --n-ctx 256"),
        (put("tokenizer.ggml.tokens", None), "tokenizer", "no vocabulary"),
        (put("tokenizer.ggml.model", None), "tokenizer", "no vocabulary"),
        (put("tokenizer.ggml.tokens", ["a", "b"]), "tokenizer", "2 tokens, but 275 rows"),
        (put("tokenizer.ggml.eos_token_id", 5000), "tokenizer", "eos_token_id is 5000"),
        (put("tokenizer.ggml.merges", None), "tokenizer", "without merges"),
        (put("tokenizer.chat_template", "{% if %}"), "chat template", "no valid Jinja"),
        (put("tokenizer.chat_template", "hello"), "chat template", "leaves the user's message out"),
        (put("tokenizer.chat_template", "{{ 1 // 0 }}"), "chat template", "ZeroDivisionError"),
        (put("tokenizer.chat_template", "{{ raise_exception('no') }}"), "chat template", "Refused"),
        (put("tokenizer.chat_template", "{{ 'x' * 99999999 }}"), "chat template", "without end"),
        (put("tokenizer.chat_template", " " * (MAX_TEMPLATE_CHARS + 1)), "chat template", "longer than"),
        (put("general.license", None), "licence", "--license SPDX"),
        (put("general.license", "other"), "licence", "--license SPDX"),
    ],
)  # fmt: skip
def test_each_reason_to_refuse_is_named(
    plain: bytes, tmp_path: Path, edit: Edit, name: str, detail: str
) -> None:
    """A single fault fails its own check and says what is wrong."""
    path = edited(plain, tmp_path / "m.gguf", edit)
    found = verdicts(path)
    assert found[name][0] == "fail"
    assert detail in found[name][1]


def test_a_model_that_fails_a_check_is_not_added(
    plain: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1, the finding, no trial and no catalog."""
    path, catalog = (
        edited(plain, tmp_path / "m.gguf", put("general.license", None)),
        tmp_path / "catalog.toml",
    )
    assert main(["add", str(path), "--name", "m", "--catalog", str(catalog)]) == 1
    said = capsys.readouterr().out
    assert "FAIL  licence" in said
    assert "skip  trial load" in said
    assert not catalog.exists()


@pytest.mark.parametrize(
    ("edit", "name", "detail"),
    [
        (put("general.license", "cc-by-nc-4.0"), "licence", "cc-by-nc-4.0 is not among the permissive"),
        (put("tokenizer.chat_template", None), "chat template", "only /v1/completions"),
        (put("general.architecture", "qwen2moe"), "reproducible", "architecture"),
    ],
)
def test_what_is_for_the_operator_to_judge_is_a_warning(
    plain: bytes, tmp_path: Path, edit: Edit, name: str, detail: str
) -> None:
    """It is said, and does not refuse."""
    found = verdicts(edited(plain, tmp_path / "m.gguf", edit))
    assert found[name][0] == "warn"
    assert detail in found[name][1]


def test_a_licence_of_the_operators_stands_in_for_the_files(plain: bytes, tmp_path: Path) -> None:
    """Named by the operator, it is enough; where the file says otherwise, both are shown."""
    silent = edited(plain, tmp_path / "m.gguf", put("general.license", None))
    assert verdicts(silent, license="MIT")["licence"] == ("pass", "MIT")
    assert verdicts(edited(plain, tmp_path / "n.gguf"), license="MIT")["licence"][0] == "warn"
    named = edited(
        plain, tmp_path / "o.gguf", put("general.license", "other"), put("general.license.name", "gemma")
    )
    assert "gemma" in verdicts(named)["licence"][1]


def test_twice_the_same_token_is_a_warning(plain: bytes, tmp_path: Path) -> None:
    """It can be served, and the operator hears of it."""

    def double(model: EditableModel) -> None:
        tokens = list(model.metadata["tokenizer.ggml.tokens"].texts or ())
        tokens[-1] = tokens[-2]
        model.metadata["tokenizer.ggml.tokens"] = texts(tokens)

    assert verdicts(edited(plain, tmp_path / "m.gguf", double))["tokenizer"] == (
        "warn",
        "gpt2, 275 tokens, 1 of them twice",
    )


def test_too_little_memory_is_a_warning(plain: bytes, tmp_path: Path) -> None:
    """A cache that no machine holds is no refusal, because another machine may serve it."""
    found = verdicts(edited(plain, tmp_path / "m.gguf"), config=EngineConfig(n_ctx_total=2**33))
    assert found["memory"][0] == "warn"
    assert available_bytes(lambda: "MemAvailable:  12 kB\n") == 12 * 1024
    assert available_bytes(lambda: "nothing") is None


def test_the_enclave_page_cache_is_read_from_every_node(tmp_path: Path) -> None:
    """Sizes of all processors add up; a machine without SGX has none."""
    assert epc_bytes(tmp_path) is None
    for node in (0, 1):
        place = tmp_path / f"sys/devices/system/node/node{node}/x86"
        place.mkdir(parents=True)
        (place / "sgx_total_bytes").write_text("1024\n")
    assert epc_bytes(tmp_path) == 2048


def test_files_that_are_no_models_are_errors(
    plain: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No GGUF, cut short, missing: status 2, a sentence, and no catalog."""
    cut, other, catalog = tmp_path / "cut.gguf", tmp_path / "other.gguf", tmp_path / "catalog.toml"
    cut.write_bytes(plain[:-100])
    other.write_bytes(b"PK" * 50)
    for path, fault in (
        (cut, "ends inside the tensor"),
        (other, "not a GGUF file"),
        (tmp_path / "no", "cannot be read"),
    ):
        assert main(["add", str(path), "--name", "m", "--catalog", str(catalog)]) == 2
        assert fault in capsys.readouterr().err
    assert not catalog.exists()
    with pytest.raises(ModelFileError, match=r"cut\.gguf"):
        read_facts(cut)


def test_a_sealed_file_is_refused_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in it can be checked; the way is to add the clear file and to seal that."""
    sealed = tmp_path / "m.sealed"
    sealed.write_bytes(MAGIC + bytes(100))
    assert main(["add", str(sealed), "--name", "m", "--catalog", str(tmp_path / "c.toml")]) == 2
    assert "--register NAME" in capsys.readouterr().err


def test_a_model_in_two_files_is_tried_and_added(
    plain: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first file is named; what is pinned is what a whole file holds."""
    model, catalog = EditableModel.parse(plain), tmp_path / "catalog.toml"
    names = list(model.tensors)
    paths = [tmp_path / f"m-{number:05}-of-00002.gguf" for number in (1, 2)]
    for path, data in zip(paths, split_files(model, [names[:5], names[5:]]), strict=True):
        path.write_bytes(data)
    assert main(["add", str(paths[0]), "--name", "m", "--catalog", str(catalog)]) == 0
    assert "in 2 files" in capsys.readouterr().out
    whole = pin_of(edited(plain, tmp_path / "whole.gguf"))
    assert read_catalog(catalog).entry("m").content == whole.content


def test_split_files_are_one_model(plain: bytes, tmp_path: Path) -> None:
    """The first file stands for all; a missing, misnamed or later one is refused with the name to use."""
    model = EditableModel.parse(plain)
    names = list(model.tensors)
    paths = [tmp_path / f"m-{number:05}-of-00002.gguf" for number in (1, 2)]
    for path, data in zip(paths, split_files(model, [names[:5], names[5:]]), strict=True):
        path.write_bytes(data)
    facts = read_facts(paths[0])
    assert facts.paths == tuple(paths)
    whole = read_facts(edited(plain, tmp_path / "whole.gguf"))
    assert facts.parameters == whole.parameters
    assert facts.size_bytes == sum(path.stat().st_size for path in paths)
    with pytest.raises(ModelFileError, match="not the first of its model's files; name m-00001-of-00002"):
        read_facts(paths[1])
    renamed = tmp_path / "m.gguf"
    renamed.write_bytes(paths[0].read_bytes())
    with pytest.raises(ModelFileError, match="one of 2 files"):
        read_facts(renamed)
    paths[1].unlink()
    with pytest.raises(ModelFileError, match="missing: m-00002-of-00002"):
        read_facts(paths[0])


def test_a_template_that_never_ends_is_ended() -> None:
    """What writes or computes for ever is counted, and what takes too long apart is stopped; a good one passes."""
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}BODY{% endfor %}{% endfor %}"
    endless = "one short message becomes a text or a work without end"
    for body in ("x" * 16, "{% set c = 1 %}"):
        assert why_unrenderable(loops.replace("BODY", body), "", "") == endless
    late = try_apart("{{ messages[0].content }}", "", "", timeout_s=0.001)
    assert late == "it does not come to an end within 0 s"
    assert try_apart("{{ bos_token }}{{ messages[0].content }}", "<s>", "") is None
    assert try_apart("{% if %}", "", "") == why_unrenderable("{% if %}", "", "")


def shape(path: Path, **changes: object) -> Path:
    """A tiny model of another shape."""
    return make_tiny_gguf(path, **changes).path  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        (None, 16_384),
        (None, 4096),
        ({"width": 512, "layers": 4, "heads": 8, "kv_heads": 2, "head": 64}, 16_384),
        (
            {
                "width": 512,
                "heads": 8,
                "kv_heads": 8,
                "head": 64,
                "quantization": gguf.GGMLQuantizationType.F16,
            },
            8192,
        ),
        ({"width": 256, "layers": 4, "heads": 8, "quantization": gguf.GGMLQuantizationType.Q4_0}, 32_768),
        ({"width": 256, "layers": 2, "heads": 8, "more_tokens": 30_000}, 8192),
    ],
)
def test_memory_is_estimated_within_the_stated_error(
    tmp_path: Path, changes: dict[str, object] | None, cells: int
) -> None:
    """The shipped model and tiny ones take what the header says they would, give or take `TOLERANCE`."""
    path = SHIPPED if changes is None else shape(tmp_path / "m.gguf", **changes)
    estimate = estimate_memory(read_facts(path), EngineConfig(n_ctx_total=cells))
    pin = pin_of(path)
    measured = run_trial(
        {
            "paths": [str(path)], "content": pin.content, "weights": pin.weights, "n_ctx": 1024, "n_ctx_total": cells,
            "generates": True, "embeddings": False,
        }
    )  # fmt: skip
    assert measured["allocated_bytes"] == pytest.approx(estimate.model_bytes, rel=TOLERANCE)


def test_the_estimate_grows_with_what_is_asked_for() -> None:
    """More cells, sequences and precision cost more; an enclave's size is a power of two above the total."""
    facts = read_facts(SHIPPED)
    small = estimate_memory(facts, EngineConfig(n_ctx_total=4096))
    assert small.enclave_bytes.bit_count() == 1
    assert small.enclave_bytes > small.total_bytes
    larger = (
        estimate_memory(facts, EngineConfig(n_ctx_total=8192)),
        estimate_memory(facts, EngineConfig(n_ctx_total=4096, max_sequences=64)),
        estimate_memory(facts, EngineConfig(n_ctx_total=4096, kv_type_v="f16")),
        estimate_memory(facts, EngineConfig(n_ctx_total=4096), embeds_tokens=512),
    )
    assert all(small.total_bytes < other.total_bytes for other in larger)
    assert estimate_memory(facts, EngineConfig(n_ctx_total=8192)).kv_cache == 2 * small.kv_cache


def test_a_trial_tells_what_only_running_shows() -> None:
    """A crash, an engine's refusal, a vocabulary without an end, lossy text and a template that fails in use."""
    estimate = estimate_memory(read_facts(SHIPPED), EngineConfig(n_ctx_total=4096))
    good = {
        "allocated_bytes": estimate.model_bytes, "load_s": 1.0, "round_trip": True, "ends": 1,
        "template": None,
    }  # fmt: skip

    def judged(**changes: object) -> list[tuple[str, str]]:
        return [
            (each.name, each.verdict) for each in judge_trial({**good, **changes}, estimate, generates=True)
        ]

    assert judged() == [("trial load", "pass")]
    assert judged(error="signal 6") == [("trial load", "fail")]
    assert judged(ends=0)[-1] == ("end of text", "fail")
    assert judged(round_trip=False)[-1] == ("tokenizer round trip", "warn")
    assert judged(template="no")[-1] == ("chat template in use", "warn")


def test_add_tries_the_model_writes_one_entry_and_remove_takes_it_out(
    plain: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run changes nothing; then the entry has the file's own name, licence and context; remove keeps the file."""
    path, catalog = edited(plain, tmp_path / "m.gguf"), tmp_path / "catalog.toml"
    arguments = ["add", str(path), "--name", "m", "--catalog", str(catalog), "--json"]
    assert main([*arguments, "--dry-run"]) == 0
    looked = json.loads(capsys.readouterr().out)
    assert (looked["added"], looked["servable"], catalog.exists()) == (False, True, False)
    assert looked["trial"]["sample"]
    assert {check["verdict"] for check in looked["checks"]} <= {"pass", "skip", "warn"}
    assert main([*arguments, "--no-trial"]) == 0
    assert json.loads(capsys.readouterr().out)["added"] is True
    entry = read_catalog(catalog).entry("m")
    assert (entry.license, entry.n_ctx, entry.description) == ("Apache-2.0", 1024, "tiny")
    assert catalog.read_text().splitlines()[1].startswith("#")
    assert main(["remove", "m", "--catalog", str(catalog)]) == 0
    assert "file stays" in capsys.readouterr().out
    assert path.exists()
    assert read_catalog(catalog).models == ()
    assert main(["remove", "m", "--catalog", str(catalog)]) == 2


def test_removing_the_default_leaves_none(
    plain: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing becomes the default by accident."""
    path, catalog = edited(plain, tmp_path / "m.gguf"), tmp_path / "catalog.toml"
    for name in ("a", "b"):
        assert main(["add", str(path), "--name", name, "--no-trial", "--catalog", str(catalog)]) == 0
    assert read_catalog(catalog).default == "a"
    capsys.readouterr()
    assert main(["remove", "a", "--catalog", str(catalog)]) == 0
    assert "no model is the default" in capsys.readouterr().out
    left = read_catalog(catalog)
    assert (left.default, [entry.name for entry in left.models]) == (None, ["b"])


def test_what_the_engine_refuses_fails_the_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A header that keeps its sliding window to itself is found out by loading."""
    path = make_tiny_gguf(tmp_path / "m.gguf", window=64).path
    model = EditableModel.parse(path.read_bytes())
    model.metadata["general.license"] = text("mit")
    # llama.cpp gives a Gemma 2 a window of 4096 when its header names none.
    model.metadata.pop("gemma2.attention.sliding_window")
    path.write_bytes(model.to_bytes())
    assert (
        main(
            ["add", str(path), "--name", "m", "--n-ctx", "256", "--dry-run", "--catalog", str(tmp_path / "c")]
        )
        == 1
    )
    assert "FAIL  trial load" in capsys.readouterr().out


def test_an_encoder_is_added_for_vectors_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a generator it is refused with the option that fits; as an embedding model it makes a vector."""
    path = make_tiny_bert(tmp_path / "m.gguf").path
    edited(path.read_bytes(), path, put("tokenizer.ggml.bos_token_id", None))
    nameless = verdicts(path, n_ctx=256, generates=False, embeddings=True)
    assert "bos_token_id is 101" in nameless["tokenizer"][1]
    edited(
        path.read_bytes(), path,
        put("tokenizer.ggml.bos_token_id", CLS), put("tokenizer.ggml.eos_token_id", SEP),
        put("tokenizer.ggml.seperator_token_id", SEP),
    )  # fmt: skip
    catalog = tmp_path / "catalog.toml"
    arguments = ["add", str(path), "--name", "m", "--license", "MIT", "--catalog", str(catalog)]
    assert main(arguments) == 1
    assert "--only-embeddings" in capsys.readouterr().out
    assert main([*arguments, "--only-embeddings"]) == 0
    assert "made a vector of 64" in capsys.readouterr().out
    assert read_catalog(catalog).entry("m").role == "embedding"
    assert main([*arguments, "--matryoshka"]) == 2
