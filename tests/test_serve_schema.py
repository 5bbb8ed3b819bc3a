"""The OpenAPI schema of `pavdm serve`: its examples work, and the server conforms to it for generated requests."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from pydantic import BaseModel
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from support.serving import BALL, HOST, serving, submit, wait_for

from pavdm_cli.serve import schemas
from pavdm_cli.serve.worker import Worker

EXAMPLES = 6  # generated requests of each kind per operation
WITHOUT_PARAMETERS = ("/healthz", "/v1/models")  # whose requests have nothing that can be wrong
PLAIN = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server that accepts videos, and renders only the first one."""
    with pytest.MonkeyPatch.context() as patch, serving(tmp_path_factory.mktemp("schema"), max_queue=9999) as client:
        wait_for(client, submit(client, frames=4), "completed")
        patch.setattr(Worker, "_claim", lambda worker: None)
        yield client


@pytest.fixture(scope="module")
def finished(client: TestClient) -> str:
    return str(client.get("/v1/videos", params={"order": "asc", "limit": 1}).json()["data"][0]["id"])


@pytest.fixture(scope="module")
def openapi(client: TestClient) -> dict[str, Any]:
    schema: dict[str, Any] = client.get("/openapi.json").json()
    return schema


def test_every_body_has_an_example_that_is_valid(openapi: dict[str, Any]) -> None:
    bodies = ("CreateVideo", "ExtendVideo", "RedoVideo", "NewPrompt", "TimelineEntry", "Video", "DeletedVideo")
    for name in (*bodies, "ErrorBody"):
        model: type[BaseModel] = getattr(schemas, name)
        examples = openapi["components"]["schemas"][name]["examples"]
        assert examples
        for example in examples:
            assert model.model_validate(example)


def test_the_examples_of_requests_are_accepted(openapi: dict[str, Any], client: TestClient, finished: str) -> None:
    models = {"CreateVideo": "", "ExtendVideo": f"/{finished}/extend"}
    for name, path in models.items():
        for example in openapi["components"]["schemas"][name]["examples"]:
            assert client.post(f"/v1/videos{path}", json=example).status_code == 200
    queued = submit(client)
    prompt = openapi["components"]["schemas"]["NewPrompt"]["examples"][0]
    assert client.post(f"/v1/videos/{queued}/prompt", json=prompt).status_code == 202


def test_the_events_are_those_of_the_schema(openapi: dict[str, Any], client: TestClient, finished: str) -> None:
    operation = openapi["paths"]["/v1/videos/{video_id}/events"]["get"]
    schema = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]
    assert all(json.loads(example["data"]) for example in schema["examples"])
    kinds = [line[7:] for line in client.get(f"/v1/videos/{finished}/events").text.splitlines() if line[:6] == "event:"]
    assert kinds == ["video", "state"]
    assert set(kinds) <= set(schema["properties"]["event"]["enum"])


def test_a_whole_number_may_be_written_with_a_point(client: TestClient) -> None:
    accepted = client.post("/v1/videos", json={"prompt": BALL, "frames": 8.0, "seed": 7.0})
    assert (accepted.status_code, accepted.json()["seed"]) == (200, 7)
    response = client.post("/v1/videos", json={"prompt": BALL, "frames": 8.5})
    assert (response.status_code, response.json()["error"]["param"]) == (422, "frames")


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")  # of the tools that generate the requests
@pytest.mark.parametrize("kind", ["POSITIVE", "NEGATIVE"])
def test_generated_requests_get_what_the_schema_says(
    kind: str, openapi: dict[str, Any], client: TestClient, finished: str
) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_dict(openapi)
    schema.app = _without_lifespan(client)
    left_out = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]  # a prompt may be unknown words

    for operation in (result.ok() for result in schema.get_all_operations()):
        if kind == "POSITIVE" or operation.path not in WITHOUT_PARAMETERS:
            requests = operation.as_strategy(generation_mode=schemathesis.GenerationMode[kind])
            video_ids = _video_ids(operation.method.upper(), client, finished)
            _check_all(requests, partial(_check, kind, video_ids, left_out))


def _check_all(requests: Any, check: Callable[[Any], None]) -> None:
    @seed(1)
    @PLAIN
    @given(requests)
    def run(case: Any) -> None:
        check(case)

    run()


def _check(kind: str, video_ids: Iterator[str], left_out: list[Any], case: Any) -> None:
    """Send a request, and compare the answer with the schema."""
    if kind == "POSITIVE":
        _make_real(case, next(video_ids))
    response = case.call(base_url=HOST)
    case.validate_response(response, excluded_checks=left_out)
    assert kind == "NEGATIVE" or response.status_code != 422, (response.text, case.as_curl_command())


def _without_lifespan(client: TestClient) -> Any:
    """The application of a client, already running: the tool would start it for every request."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await client.app(scope, receive, send)
            return
        for answer in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{answer}.complete"})

    return call


def _video_ids(method: str, client: TestClient, finished: str) -> Iterator[str]:
    """Ids for requests: of a complete video, whose streams end, and of queued ones, which may be deleted."""
    if method == "GET":
        return itertools.repeat(finished)
    return (submit(client) if method == "DELETE" or number % 2 else finished for number in itertools.count())


def _make_real(case: Any, video_id: str) -> None:
    """Let a request reach further than `not found` and `unknown words`."""
    if "video_id" in (case.path_parameters or {}):
        case.path_parameters["video_id"] = video_id
    if isinstance(case.body, dict) and case.body.get("prompt"):
        case.body["prompt"] = BALL
