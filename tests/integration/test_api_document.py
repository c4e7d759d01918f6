# SPDX-License-Identifier: Apache-2.0
"""The API does what its OpenAPI document says, and nothing else: schemathesis tries both sides of every bound.

What is valid is judged by the document alone, on the very bytes that were sent.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from adyton_enclave.api import app
from adyton_enclave.api.parameters import PARAMETERS
from adyton_protocol.errors import Cancelled, EngineError
from api_page import PAGE, with_tables
from appliance import Appliance
from open_api import INNER_URL, open_api
from openapi_document import ERRORS, OUTPUT, as_text, openapi_document
from schema_edges import Edges
from tiny_appliance import TINY

DOCUMENT: Any = openapi_document()
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}
CODES = {error.code.replace("-", "_"): error.status for error in ERRORS}
BOTH = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
# What a valid request may still meet: no such model, too long a prompt or answer, too short a deadline.
OUT_OF_SCOPE = {"deadline_exceeded", "model_not_found", "context_length_exceeded", "not_found"}


@pytest.fixture(scope="module")
def unsealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The API in this process."""
    with open_api(tmp_path_factory.mktemp("api")) as http:
        yield http


@pytest.fixture(scope="module")
def sealed(tiny_appliance: Appliance) -> Iterator[httpx.Client]:
    """The API of a running appliance, through the sealed transport."""
    with tiny_appliance.client() as client, client.http() as http:
        yield http


def body_schemas() -> dict[str, Any]:
    """The schema of the request body of each operation that has one."""
    found = {}
    for label, operation in OPERATIONS.items():
        body = DOCUMENT["paths"][operation.path][operation.method].get("requestBody")
        if body is not None:
            found[label] = body["content"]["application/json"]["schema"]
    return found


BODIES = body_schemas()
VALIDATORS = {
    label: jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    for label, schema in BODIES.items()
}
ERROR = jsonschema_rs.Draft202012Validator(DOCUMENT["components"]["schemas"]["Error"])


def is_valid(label: str, request: httpx.Request) -> bool:
    """True when the document allows this very request."""
    if request.method != label.split(maxsplit=1)[0]:
        return False
    if label not in BODIES:
        return True
    if request.headers.get("content-type", "application/json") != "application/json":
        return False
    try:
        body = json.loads(request.content)
    except ValueError:
        return False
    return bool(VALIDATORS[label].is_valid(body))


def try_case(http: httpx.Client, case: Case) -> str:
    """Send a case and hold its answer against the document; returns what came of it."""
    sent = case.as_transport_kwargs(base_url=INNER_URL)
    request = http.build_request(
        sent["method"],
        sent["url"],
        headers=dict(sent["headers"]),
        params=sent.get("params") or None,
        json=sent.get("json"),
        content=sent.get("data"),
    )
    response = http.send(request)
    outcome = judge(case.operation.label, response)
    case.validate_response(
        response,
        excluded_checks=[
            # A passed deadline is 504 and no defect; what is one has a code of its own, which judge looks for.
            schemathesis.checks.not_a_server_error,
            schemathesis.checks.negative_data_rejection,
            schemathesis.checks.positive_data_acceptance,
        ],
    )
    return outcome


def judge(label: str, response: httpx.Response) -> str:
    """What came of a request, which must be what the document says of it."""
    request = response.request
    valid = is_valid(label, request)
    if response.status_code == httpx.codes.OK:
        assert valid, request.content[:2000]
        return "accepted"
    error = response.json()["error"]
    outcome: str = error["code"]
    assert CODES[outcome] == response.status_code
    assert outcome not in {"internal_error", "engine_stopped", "out_of_memory"}, request.content[:2000]
    # What is invalid is found out as such, before anything is looked up or counted.
    assert valid or outcome not in OUT_OF_SCOPE - {"not_found"}, (error, request.content[:2000])
    if valid and outcome not in OUT_OF_SCOPE:
        operation = OPERATIONS[label]
        refinements = DOCUMENT["paths"][operation.path][operation.method]["x-refinements"]
        field = (error["param"] or "").split(".")[0].split("[")[0]
        # JSON Schema takes 1.0 for an integer; the API takes it for a fraction.
        pointed = "whole number" in error["message"] and b"." in request.content
        assert outcome in {"invalid_request", "unsupported_parameter"}, (error, request.content[:2000])
        assert pointed or field in refinements, (error, request.content[:2000])
    return outcome


def chosen_by_schemathesis(label: str) -> Iterator[Case]:
    """Valid and invalid requests, one for each keyword of each schema of an operation."""
    yield from SCHEMA.iter_coverage_cases(
        OPERATIONS[label], generation_modes=BOTH, generation_config=SCHEMA.config.generation
    )


def try_edges(http: httpx.Client, label: str) -> Iterator[str]:
    """Send every edge of the schema of an operation's body; returns what came of each."""
    for body in Edges(DOCUMENT["components"]["schemas"]).around(BODIES[label]):
        response = http.post(OPERATIONS[label].path, json=body)
        yield judge(label, response)
        assert response.is_success or ERROR.is_valid(response.json())


def test_the_document_is_up_to_date() -> None:
    """docs/openapi.json is what `make openapi` writes."""
    assert OUTPUT.read_text(encoding="utf-8") == as_text(openapi_document())


def test_the_page_is_up_to_date() -> None:
    """The tables of docs/api.md are what `make openapi` writes."""
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page)
    assert page.count("<!-- table: ") == len(BODIES) + 1


def test_every_route_is_documented() -> None:
    """There is no endpoint that the document does not have, and none in the document that is not there."""
    posts = {path for path, methods in DOCUMENT["paths"].items() if "post" in methods}
    assert posts == set(app._POSTS)
    assert posts == {endpoint for parameter in PARAMETERS for endpoint in parameter.endpoints}


def subclasses(of: type[EngineError]) -> Iterator[type[EngineError]]:
    """All of the enclave or the protocol that have a code of their own."""
    for found in of.__subclasses__():
        if found.__module__.startswith("adyton_") and "code" in vars(found):
            yield found
        yield from subclasses(found)


def test_every_error_is_documented() -> None:
    """There is no error of the engine or the API that the table does not list."""
    # Nobody is left to read that a request was cancelled.
    assert set(subclasses(EngineError)) - {Cancelled} == set(ERRORS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_bound_of_the_document_is_the_bound_of_the_api(unsealed: httpx.Client, label: str) -> None:
    """On, inside and outside each bound of each field the API accepts and refuses as the document says."""
    # A share of schemathesis's choice; a slower test below sends all of it.
    chosen = itertools.islice(chosen_by_schemathesis(label), None, None, 4)
    outcomes = Counter(try_case(unsealed, case) for case in chosen)
    if label in BODIES:
        outcomes.update(try_edges(unsealed, label))
        assert outcomes["accepted"] > 30
        assert outcomes["invalid_request"] > 30


def test_what_exists_is_shown_as_the_document_says(unsealed: httpx.Client) -> None:
    """The model and the receipt of an answer are found under their names, in the documented form."""
    made = unsealed.post("/v1/completions", json={"prompt": "x"})
    receipt_id = made.headers["x-receipt-id"]
    for path, name in (("/v1/models/{model}", TINY), ("/v1/aci/receipts/{receipt}", receipt_id)):
        (field,) = (word.strip("{}") for word in path.split("/") if word.startswith("{"))
        case = OPERATIONS[f"GET {path}"].Case(path_parameters={field: name})
        assert try_case(unsealed, case) == "accepted"


@pytest.mark.slow
@pytest.mark.parametrize("label", OPERATIONS)
def test_the_sealed_api_keeps_to_the_document_at_every_bound(sealed: httpx.Client, label: str) -> None:
    """The same through the seal, the host and the gateway of a running appliance."""
    for case in chosen_by_schemathesis(label):
        try_case(sealed, case)


@pytest.mark.slow
@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.parametrize("label", BODIES)
def test_the_api_keeps_to_the_document_whatever_comes(
    unsealed: httpx.Client, label: str, mode: GenerationMode
) -> None:
    """Generated requests, valid and invalid, get documented answers and nothing worse than a refusal."""
    strategy = OPERATIONS[label].as_strategy(generation_mode=mode)

    @settings(
        max_examples=100,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        try_case(unsealed, data.draw(strategy))

    fuzz()
