"""Whatever a body holds, the answer is an error object with a status below 500, or a text."""

import asyncio
import json
import random
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import stochroute as sr
from cli_model import save_tiny_model
from live_server import NAME, engine_of, live
from stochroute.serving.app import build_app

CONFIG = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=0.7))
BODIES = 10_000
_KIND = {"content-type": "application/json"}
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 1 << 31, 1 << 63, 1 << 64, -(1 << 70), 0.5, -0.0, 1e308, 1e-320, "", "a", "Once",
    "\x00", "\ud800", "🙂" * 3, "f" * 16, "a" * 300, [], [0], [1, "a"], ["a", "b"], [[]], [[1], [2]], [None], {},
    {"a": 1}, {"include_usage": True}, {"type": "text"}, [{"role": "user", "content": "Hi"}], [{"role": "user"}],
    ["f" * 16],
]  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return engine_of(save_tiny_model(tmp_path_factory.mktemp("model")), CONFIG, choices=4)


def bodies(chance: random.Random, fields: list[str]) -> bytes:
    """A request with something wrong in it: a field's value, its JSON, or its bytes."""
    chats = chance.random() < 0.5
    body: dict[str, Any] = {"model": NAME, "max_tokens": 1, "temperature": 1}
    body |= {"messages": [{"role": "user", "content": "Hi"}]} if chats else {"prompt": "Once"}
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        body[chance.choice([*fields, "nonsense", ""])] = chance.choice(_VALUES)
    text = json.dumps(body).encode()
    damage = chance.random()
    if damage < 0.1:
        return text[: chance.randrange(len(text))]
    if damage < 0.3:
        damaged = bytearray(text)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        return bytes(damaged)
    if damage < 0.33:
        return chance.randbytes(chance.randrange(200))
    if damage < 0.35:
        return b"[" * chance.randint(1, 3000) + text
    return text


def test_10000_malformed_bodies_meet_no_server_error(engine):
    """Straight into the application, without a socket between."""
    app = build_app(engine)
    schema = app.openapi()["components"]["schemas"]
    fields = sorted({*schema["CompletionRequest"]["properties"], *schema["ChatRequest"]["properties"]})

    async def send_all() -> dict[int, int]:
        chance, seen = random.Random(5), {}
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as http,
        ):
            for number in range(BODIES):
                route = "/v1/completions" if number % 2 else "/v1/chat/completions"
                content = bodies(chance, fields)
                answer = await http.post(route, content=content, headers=_KIND)
                seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
                assert answer.status_code in (200, 400, 404), (content, answer.text)
                if answer.status_code != 200:
                    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, content
        return seen

    seen = asyncio.run(send_all())
    assert sum(seen.values()) == BODIES
    assert seen[400] > BODIES / 2
    assert seen[200] > BODIES / 100  # some values are right by chance, so not everything stops at the first check


def test_the_server_keeps_to_its_own_description(tmp_path_factory):
    """schemathesis makes requests from /openapi.json, good and bad, and compares every answer with it."""
    folder = save_tiny_model(tmp_path_factory.mktemp("model"))
    with live(engine_of(folder, CONFIG, choices=4)) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
        asked = 0
        for result in schema.get_all_operations():
            operation = result.ok()

            @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None, derandomize=True)
            @schemathesis_given(operation)
            def keeps(case):
                nonlocal asked
                asked += 1
                case.call_and_validate(base_url=server.url, checks=checks, timeout=30)

            keeps()
        assert asked > 100


def schemathesis_given(operation):
    from hypothesis import given
    from schemathesis import GenerationMode

    return given(case=operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE))
