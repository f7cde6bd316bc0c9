"""What stands before the routes, and what the server says of itself: key, host, sizes, times, health, metrics, logs."""

import json
import socket

import httpx
import pytest

import stochroute as sr
from cli_model import save_tiny_model
from live_server import NAME, engine_of, error_of, events_of, live

CONFIG = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=0.7))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def test_a_key_is_asked_for_everywhere_but_on_the_page_and_for_health(folder: str):
    with live(engine_of(folder, CONFIG), key="a secret ключ") as server:
        for route in ("/v1/models", "/metrics", "/openapi.json"):
            answer = server.http.get(route)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert error_of(answer)["type"] == "authentication_error"
        assert server.refused(401)["code"] == "invalid_api_key"
        for wrong in ("Bearer wrong", "Bearer", "Basic a secret ключ", "Bearer a secret ключ2", ""):
            assert server.http.get("/v1/models", headers={"authorization": wrong.encode()}).status_code == 401
        right = {"authorization": "Bearer a secret ключ".encode()}
        assert server.http.get("/v1/models", headers=right).status_code == 200
        assert server.http.get("/health").status_code == 200
        assert server.http.get("/").status_code == 200


def test_a_server_on_loopback_answers_to_its_own_name_only(folder: str):
    with live(engine_of(folder, CONFIG), hosts=["127.0.0.1", "localhost", "[::1]"]) as server:
        assert server.http.get("/health").status_code == 200
        for host, status in (("localhost:1", 200), ("[::1]:80", 200), ("evil.example", 400), ("", 400)):
            assert server.http.get("/health", headers={"host": host}).status_code == status


def test_cors_is_off_until_an_origin_is_named(folder: str):
    origin = {"origin": "https://app.example", "access-control-request-method": "POST"}
    with live(engine_of(folder, CONFIG)) as server:
        assert "access-control-allow-origin" not in server.http.get("/health", headers=origin).headers
        assert server.http.options("/v1/completions", headers=origin).status_code == 405
    with live(engine_of(folder, CONFIG), cors_origins=["https://app.example"]) as server:
        answer = server.http.options("/v1/completions", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"


def test_a_body_over_the_limit_is_a_413_whether_its_length_is_declared_or_not(folder: str):
    with live(engine_of(folder, CONFIG, body_bytes=2000)) as server:
        assert server.refused(413, prompt="x" * 3000)["code"] == "body_too_large"
        kind = {"content-type": "application/json"}
        chunked = server.http.post("/v1/completions", content=(b" " * 100 for _ in range(40)), headers=kind)
        assert chunked.status_code == 413


def test_a_body_that_does_not_arrive_is_a_408(folder: str):
    with live(engine_of(folder, CONFIG, body_seconds=0.2)) as server:
        address = httpx.URL(server.url)
        with socket.create_connection((address.host, address.port or 0), timeout=10) as slow:
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
            assert b" 408 " in slow.recv(100)


def test_a_full_queue_is_a_429_that_says_when_to_try_again(folder: str):
    with live(engine_of(folder, CONFIG, rows=2, waiting=3)) as server:
        answer = server.http.post("/v1/completions", json={"model": NAME, "prompt": "Once", "n": 6})
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert error_of(answer)["type"] == "rate_limit_error"
        assert len(server.complete(n=5, max_tokens=2)["choices"]) == 5


def test_a_request_over_its_time_is_a_504_and_frees_its_rows(folder: str):
    with live(engine_of(folder, CONFIG, seconds=0.0)) as server:
        assert server.refused(504)["code"] == "timeout"
        with server.http.stream(
            "POST", "/v1/completions", json={"model": NAME, "prompt": "O", "stream": True}
        ) as answer:
            (event,) = events_of(answer)
        assert json.loads(event)["error"]["code"] == "timeout"
        server.until_idle()


def test_a_model_that_fails_is_a_500_and_the_server_goes_on(folder: str):
    engine = engine_of(folder, CONFIG)
    with live(engine) as server:

        def fail(*args, **kwargs):
            raise RuntimeError("out of memory")

        hook = engine.served.routed.model.register_forward_pre_hook(fail)
        assert server.refused(500)["code"] == "engine_error"
        hook.remove()
        assert server.complete(max_tokens=2)["choices"][0]["finish_reason"]
        assert server.http.get("/health").json() == {"status": "ok"}


def test_a_server_whose_engine_has_ended_says_so(folder: str):
    engine = engine_of(folder, CONFIG)
    with live(engine) as server:
        engine.stop()
        assert server.http.get("/health").status_code == 503
        assert server.refused(503)["code"] == "engine_stopped"


def test_metrics_count_what_was_done(folder: str):
    with live(engine_of(folder, CONFIG)) as server:
        usage = server.complete(n=3, seed=7, max_tokens=9)["usage"]
        server.refused(400, n=0)
        page = server.http.get("/metrics").text
    counted = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    assert float(counted["stochroute_written_tokens_total"]) == usage["completion_tokens"]
    assert float(counted["stochroute_prompt_tokens_total"]) == usage["prompt_tokens"]
    assert float(counted['stochroute_requests_total{route="/v1/completions",status="200"}']) == 1
    assert float(counted['stochroute_requests_total{route="/v1/completions",status="400"}']) == 1
    assert float(counted["stochroute_texts_in_flight"]) == 0
    assert float(counted["stochroute_forward_passes_total"]) <= 9


def test_logs_are_json_without_prompts_or_texts(folder: str, caplog):
    from stochroute.serving.logs import JsonFormatter

    # a request is logged after its answer has been read: the level has to last until the server has stopped
    with caplog.at_level("INFO", logger="stochroute.serving"), live(engine_of(folder, CONFIG)) as server:
        text = server.complete(prompt="a very secret prompt", n=2, seed=7, max_tokens=9)["choices"][0]["text"]
        server.until_idle()
    lines = [JsonFormatter().format(record) for record in caplog.records if record.name == "stochroute.serving"]
    (line,) = [json.loads(line) for line in lines if '"event": "request"' in line]
    assert {"time", "level", "request", "route", "status", "seconds", "texts", "completion_tokens"} <= set(line)
    assert line["texts"] == 2
    assert not any("secret" in line or json.dumps(text)[1:-1] in line for line in lines)
