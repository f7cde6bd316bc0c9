"""The API over HTTP: what is answered, what is refused, and with which words."""

import json

import pytest
import torch

import stochroute as sr
from cli_model import CONTEXT, save_tiny_model
from live_server import NAME, Live, engine_of, error_of, events_of, live
from stochroute.loading import continuation, load_model

CONFIG = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=0.7))
CHAT = [{"role": "user", "content": "Hello"}]
PATHS = ["00c0ffee00c0ffee", "0123456789abcdef", "ffffffffffffffff"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(folder):
    with live(engine_of(folder, CONFIG, rows=32, choices=8)) as server:
        yield server


# -- answers


def test_a_completion_has_the_texts_their_paths_and_the_counts(server: Live):
    answer = server.complete(n=3, seed=7, max_tokens=9)
    assert answer["object"] == "text_completion"
    assert answer["seed"] == "7"
    assert [choice["path"] for choice in answer["choices"]] == [sr.format_path(p) for p in sr.derive_paths(7, 3)]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    written = sum(len(choice["text"]) > 0 for choice in answer["choices"])
    assert written == 3
    usage = answer["usage"]
    assert usage["prompt_tokens"] == len("Once")
    assert usage["completion_tokens"] <= 27
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_texts_are_those_of_generate(server: Live, folder: str):
    answer = server.complete(paths=PATHS, max_tokens=20, temperature=0.8, top_p=0.9)
    loaded = load_model(folder, "cpu", "float64")
    routed = sr.route(loaded.model, CONFIG)
    ids = loaded.tokenizer("Once")["input_ids"]
    out = routed.generate(
        torch.tensor([ids]), paths=PATHS, max_new_tokens=20, do_sample=True, temperature=0.8, top_p=0.9, top_k=0
    )
    texts = [continuation(loaded, ids, row) for row in out.generated.tolist()]
    assert [choice["text"] for choice in answer["choices"]] == texts
    assert [choice["receipt"] for choice in answer["choices"]] == [receipt.to_dict() for receipt in out.receipts]


def test_spread_texts_are_those_of_generate_and_replay_alone(server: Live, folder: str):
    answer = server.complete(n=4, seed=7, spread=True, max_tokens=12)["choices"]
    assert [choice["path"] for choice in answer] == [sr.format_path(p) for p in sr.derive_paths(7, 4, spread=True)]
    loaded = load_model(folder, "cpu", "float64")
    ids = loaded.tokenizer("Once")["input_ids"]
    asked = {"max_new_tokens": 12, "do_sample": True, "top_k": 0, "spread": True}
    out = sr.route(loaded.model, CONFIG).generate(torch.tensor([ids]), paths=4, seed=7, **asked)
    assert [choice["text"] for choice in answer] == [continuation(loaded, ids, row) for row in out.generated.tolist()]
    assert [choice["receipt"] for choice in answer] == [receipt.to_dict() for receipt in out.receipts]
    alone = server.complete(paths=[answer[2]["path"]], spread=True, max_tokens=12)["choices"][0]
    assert alone["text"] == answer[2]["text"]


def test_texts_along_spread_noise_are_those_of_generate(folder: str):
    noise = sr.Structural(form="latent", rank=4, layers="all", strength=1.0, spread=True)
    config = sr.RoutingConfig(structural=noise)
    with live(engine_of(folder, config)) as server:
        answer = server.complete(n=4, seed=7, temperature=0, max_tokens=12)["choices"]
    loaded = load_model(folder, "cpu", "float64")
    ids = loaded.tokenizer("Once")["input_ids"]
    out = sr.route(loaded.model, config).generate(torch.tensor([ids]), paths=4, seed=7, max_new_tokens=12)
    assert [choice["receipt"] for choice in answer] == [receipt.to_dict() for receipt in out.receipts]
    assert [choice["text"] for choice in answer] == [continuation(loaded, ids, row) for row in out.generated.tolist()]


def test_a_path_is_the_same_alone_in_a_crowd_and_in_a_stream(server: Live):
    crowd = server.complete(prompt=["Once", "More than that"], paths=PATHS, max_tokens=20)["choices"]
    for choice in crowd:
        prompt = ["Once", "More than that"][choice["index"] // 3]
        asked = {"prompt": prompt, "paths": [choice["path"]], "max_tokens": 20}
        assert server.complete(**asked)["choices"][0]["text"] == choice["text"]
        assert streamed(server, **asked)[0] == choice["text"]


def streamed(server: Live, **fields) -> list[str]:
    """The texts of a streamed completion."""
    with server.http.stream("POST", "/v1/completions", json={"model": NAME, "stream": True, **fields}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        *chunks, last = events_of(answer)
    assert last == "[DONE]"
    texts: dict[int, str] = {}
    finished = set()
    for chunk in map(json.loads, chunks):
        for choice in chunk["choices"]:
            assert choice["index"] not in finished
            assert choice["path"]
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
            if choice["finish_reason"]:
                finished.add(choice["index"])
                assert choice["receipt"]["path"] == choice["path"]
    assert finished == set(texts)
    return [texts[index] for index in sorted(texts)]


def test_a_stream_ends_with_the_counts_where_they_are_asked_for(server: Live):
    body = {"model": NAME, "prompt": "Once", "stream": True, "max_tokens": 5, "n": 2, "seed": 3}
    asked = {**body, "stream_options": {"include_usage": True}}
    with server.http.stream("POST", "/v1/completions", json=asked) as answer:
        *chunks, last, done = events_of(answer)
    assert done == "[DONE]"
    assert json.loads(last)["choices"] == []
    assert json.loads(last)["usage"] == server.complete(n=2, seed=3, max_tokens=5)["usage"]
    assert all(json.loads(chunk)["usage"] is None for chunk in chunks)


def test_a_chat_goes_through_the_template(server: Live):
    body = {"model": NAME, "messages": CHAT, "max_tokens": 12, "paths": PATHS[:2]}
    answer = server.http.post("/v1/chat/completions", json=body).json()
    assert answer["object"] == "chat.completion"
    # the tiny model's template writes its turns in brackets
    plain = server.complete(prompt="[Hello]", max_tokens=12, paths=PATHS[:2])
    assert [c["message"]["content"] for c in answer["choices"]] == [c["text"] for c in plain["choices"]]
    assert all(choice["message"]["role"] == "assistant" for choice in answer["choices"])
    with server.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as streaming:
        *chunks, _ = events_of(streaming)
    texts = ["", ""]
    for chunk in map(json.loads, chunks):
        assert chunk["object"] == "chat.completion.chunk"
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == [choice["message"]["content"] for choice in answer["choices"]]
    assert json.loads(chunks[0])["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_parts_of_a_message_and_an_answer_sent_back_are_taken(server: Live):
    first = server.http.post(
        "/v1/chat/completions",
        json={"model": NAME, "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], "seed": 1},
    ).json()
    back = [*CHAT, {**first["choices"][0]["message"], "tool_calls": None}, {"role": "developer", "content": "x"}]
    body = {"model": NAME, "messages": back, "max_tokens": 1, "seed": 1}
    answer = server.http.post("/v1/chat/completions", json=body)
    assert answer.status_code in (200, 400)  # the random text may fill the context
    assert answer.status_code == 200 or error_of(answer)["code"] == "context_length_exceeded"


def test_prompts_may_be_token_ids(server: Live):
    ids = server.engine.served.tokenizer("Once")["input_ids"]
    by_text = server.complete(seed=7, max_tokens=9)["choices"][0]["text"]
    assert server.complete(prompt=ids, seed=7, max_tokens=9)["choices"][0]["text"] == by_text
    assert server.complete(prompt=[ids], seed=7, max_tokens=9)["choices"][0]["text"] == by_text


def test_log_probabilities_come_in_both_shapes(server: Live):
    asked = {"paths": PATHS[:1], "max_tokens": 6}
    legacy = server.complete(**asked, logprobs=2)["choices"][0]["logprobs"]
    assert len(legacy["tokens"]) == len(legacy["token_logprobs"]) == len(legacy["text_offset"])
    assert all(0 < len(top) <= 2 for top in legacy["top_logprobs"])
    body = {"model": NAME, "messages": CHAT, "logprobs": True, "top_logprobs": 2, **asked}
    chat = server.http.post("/v1/chat/completions", json=body).json()["choices"][0]["logprobs"]["content"]
    again = server.complete(prompt="[Hello]", **asked, logprobs=2)["choices"][0]["logprobs"]
    assert [token["logprob"] for token in chat] == pytest.approx(again["token_logprobs"])
    for token in chat:
        assert token["logprob"] <= 0
        assert len(token["top_logprobs"]) == 2
        assert token["bytes"] is None or bytes(token["bytes"]).decode() == token["token"]


def test_without_a_seed_one_is_drawn_and_reported(server: Live):
    first, second = server.complete(max_tokens=3), server.complete(max_tokens=3)
    assert first["seed"] != second["seed"]
    again = server.complete(max_tokens=3, seed=int(first["seed"]))
    assert again["choices"][0]["text"] == first["choices"][0]["text"]


def test_strength_hold_and_span_change_a_text_and_its_receipt(server: Live):
    asked = {"paths": PATHS[:1], "max_tokens": 40, "temperature": 0, "prompt": "A longer prompt"}
    settings = [{}, {"strength": 0.3}, {"hold": 1}, {"span": "all"}, {"strength": 0}]
    answers = [server.complete(**asked, **setting)["choices"][0] for setting in settings]
    assert len({answer["text"] for answer in answers}) == len(settings)
    assert len({answer["receipt"]["routing"] for answer in answers}) == len(settings)
    assert [answer["receipt"]["start"] for answer in answers] == [14, 14, 14, 0, 14]


def test_the_model_card_says_what_does_something_here(server: Live):
    (card,) = server.http.get("/v1/models").json()["data"]
    assert card == server.http.get(f"/v1/models/{NAME}").json()
    assert card["id"] == NAME
    assert card["context"] == CONTEXT
    assert card["most_choices"] == 8
    assert card["fields"]["strength"] == {"on": True, "default": 0.7, "why": None, "reach": None}


# -- refusals


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 9}, "n", "more than the 8"),
        ({"n": 5, "prompt": ["a", "b"]}, "n", "5 texts for each of 2 prompts"),
        ({"n": "2"}, "n", "integer"),
        ({"n": 2.5}, "n", "integer"),
        ({"paths": []}, "paths", "at least 1"),
        ({"paths": ["xyz"]}, "paths.0", "16 hex digits"),
        ({"paths": [12]}, "paths.0", "string"),
        ({"paths": PATHS, "n": 2}, "n", "names 3"),
        ({"paths": PATHS, "seed": 2}, "seed", "no effect beside paths"),
        ({"paths": PATHS[:1] * 2}, "paths", "named twice"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": 1 << 64}, "seed", "less than"),
        ({"strength": -0.1}, "strength", "greater than or equal to 0"),
        ({"strength": 1e999}, "strength", "finite"),
        ({"budget": 0.1}, "budget", "start it with --budgets"),
        ({"hold": 0}, "hold", "greater than or equal to 1"),
        ({"hold": "ever"}, "hold", "sequence"),
        ({"span": "some"}, "span", "generated"),
        ({"strength": 0, "hold": 3}, "hold", "no effect with strength 0"),
        ({"strength": 0, "temperature": 0, "n": 2}, "n", "nothing tells them apart"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
        ({"temperature": 0.001}, "temperature", "write 0"),
        ({"temperature": 0, "top_p": 0.5}, "top_p", "no effect at temperature 0"),
        ({"temperature": 0, "spread": True}, "spread", "no effect at temperature 0"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"stop": ""}, "stop", "at least 1 character"),
        ({"stop": ["a"] * 17}, "stop", "at most 16"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 61}, "max_tokens", "ask for at most 60"),
        ({"prompt": "a" * CONTEXT}, None, "shorten it"),
        ({"prompt": ""}, "prompt", "gives no token"),
        ({"prompt": []}, "prompt", "at least 1 item"),
        ({"prompt": [999]}, "prompt", "vocabulary"),
        ({"prompt": [-1]}, "prompt", "greater than or equal to 0"),
        ({"prompt": ["a", 1]}, "prompt", "string"),
        ({"prompt": None}, "prompt", "string"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "no effect without stream"),
        ({"best_of": 2}, "best_of", "1"),
        ({"presence_penalty": 0.5}, "presence_penalty", "less than or equal to 0"),
        ({"logit_bias": {"1": 2.0}}, "logit_bias", "at most 0"),
        ({"nonsense": 1}, "nonsense", "no field here"),
        ({"messages": CHAT}, "messages", "no field here"),
        ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
)
def test_a_bad_field_is_named_with_the_remedy(server: Live, fields, param, words):
    content = json.dumps({"model": NAME, "prompt": "Once", **fields})
    answer = server.http.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "messages", "required"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role", "user"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "required"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", "text"),
        ({"messages": CHAT, "tools": [{"type": "function"}]}, "tools", "at most 0"),
        ({"messages": CHAT, "top_logprobs": 2}, "top_logprobs", "no effect without logprobs"),
        ({"messages": CHAT, "max_tokens": 2, "max_completion_tokens": 2}, "max_tokens", "leave one out"),
        ({"messages": CHAT, "max_completion_tokens": 99}, "max_completion_tokens", "ask for at most"),
        ({"messages": CHAT, "response_format": {"type": "json_object"}}, "response_format.type", "text"),
    ],
)
def test_a_bad_chat_is_named_with_the_remedy(server: Live, fields, param, words):
    error = server.refused(400, "/v1/chat/completions", **fields)
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b'"x"', b"null", b"\xff\xfe", b"[" * 5000, b'{"a":' * 5000, b"NaN"]
)
def test_a_body_that_is_no_object_is_refused(server: Live, content):
    answer = server.http.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error_of(answer)


def test_a_body_that_does_not_say_that_it_is_json_is_refused(server: Live):
    """A page of another origin can send such a body without asking the browser."""
    content = json.dumps({"model": NAME, "prompt": "Once"})
    answer = server.http.post("/v1/completions", content=content, headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    assert "application/json" in error_of(answer)["message"]


def test_an_unknown_model_is_a_404(server: Live):
    assert server.refused(404, model="gpt-4")["code"] == "model_not_found"
    assert error_of(server.http.get("/v1/models/gpt-4"))["code"] == "model_not_found"


def test_unknown_routes_and_methods_have_error_objects_too(server: Live):
    assert server.http.get("/v1/nothing").status_code == 404
    error_of(server.http.get("/v1/nothing"))
    assert server.http.get("/v1/completions").status_code == 405
    error_of(server.http.get("/v1/completions"))
    assert server.http.get("/playground/../app.py").status_code == 404
    assert server.http.get("/playground/secrets.js").status_code == 404


def test_a_model_without_a_chat_template_refuses_chats(folder: str):
    engine = engine_of(folder, CONFIG)
    engine.reading_tokenizer.chat_template = None
    with live(engine) as server:
        assert "no chat template" in server.refused(400, "/v1/chat/completions", messages=CHAT)["message"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (sr.RoutingConfig(structural=None), "without noise"),
        (sr.RoutingConfig(attention=sr.Attention()), "several kinds"),
        (sr.RoutingConfig(structural=sr.Structural(layers=(0, 1), strength=(0.1, 0.2))), "for each layer"),
    ],
    ids=["silent", "two kinds", "a strength a layer"],
)
def test_a_strength_that_this_routing_cannot_honour_is_refused(folder: str, config, words):
    with live(engine_of(folder, config)) as server:
        error = server.refused(400, strength=0.3)
        assert error["code"] == "unsupported_field"
        assert words in error["message"]
        card = server.http.get("/v1/models").json()["data"][0]
        assert card["fields"]["strength"]["on"] is False
        assert server.complete(paths=PATHS, max_tokens=3)["choices"][2]["path"] == PATHS[2]
        assert server.complete(strength=0, seed=1, max_tokens=3)["choices"][0]["path"]
