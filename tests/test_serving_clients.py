"""The official clients work unchanged."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from openai import (
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)

import stochroute as sr
from cli_model import save_tiny_model
from live_server import NAME, Live, engine_of, live

CONFIG = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=0.7))
KEY = "a key"
CHAT = [{"role": "user", "content": "Hello"}]
PATHS = ["00c0ffee00c0ffee", "0123456789abcdef", "ffffffffffffffff"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(folder):
    with live(engine_of(folder, CONFIG, rows=48), key=KEY) as server:
        server.http.headers["authorization"] = f"Bearer {KEY}"
        yield server


@pytest.fixture
def client(server: Live):
    with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, http_client=plain_http()) as client:
        yield client


def plain_http() -> httpx.Client:
    return httpx.Client(trust_env=False)


# -- openai


def test_openai_lists_the_model(client: OpenAI):
    (model,) = client.models.list().data
    assert model.id == NAME
    assert client.models.retrieve(NAME).created == model.created


def test_openai_completes_along_paths(client: OpenAI):
    asked = {"model": NAME, "prompt": "Once", "max_tokens": 10, "top_p": 0.9, "temperature": 0.8, "stop": ["\n"]}
    first = client.completions.create(**asked, n=3, seed=7, logprobs=1, user="me")
    ids = [choice.path for choice in first.choices]
    assert ids == [sr.format_path(path) for path in sr.derive_paths(7, 3)]
    again = client.completions.create(**asked, extra_body={"paths": ids[1:2]})
    assert again.choices[0].text == first.choices[1].text
    assert first.usage is not None
    assert first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens
    assert first.choices[0].finish_reason in ("stop", "length")
    assert first.choices[0].logprobs is not None
    assert first.system_fingerprint == again.system_fingerprint


def test_openai_chats_and_streams(client: OpenAI):
    asked = {"model": NAME, "messages": CHAT, "max_completion_tokens": 12, "extra_body": {"paths": PATHS[:2]}}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert whole.choices[0].logprobs is not None
    texts, usage = ["", ""], None
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
        usage = chunk.usage or usage
    assert texts == [choice.message.content for choice in whole.choices]
    assert usage == whole.usage


def test_openai_chat_helper_for_streams_puts_a_message_together(client: OpenAI):
    asked = {"model": NAME, "messages": CHAT, "seed": 3}
    whole = client.chat.completions.create(**asked, max_tokens=12).choices[0].message.content
    assert whole
    with client.chat.completions.stream(**asked, stop=whole[6]) as stream:  # it wants texts that end by themselves
        for _ in stream:
            pass
        streamed = stream.get_final_completion()
    assert streamed.choices[0].message.content == whole[: whole.index(whole[6])]


def test_openai_raises_its_own_errors(server: Live, client: OpenAI):
    with pytest.raises(NotFoundError, match="not served here"):
        client.completions.create(model="other", prompt="Once")
    with pytest.raises(BadRequestError, match="16 hex digits") as caught:
        client.completions.create(model=NAME, prompt="Once", extra_body={"paths": ["1"]})
    assert caught.value.param == "paths.0"
    assert caught.value.code == "invalid_value"
    with (
        OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0, http_client=plain_http()) as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.models.list()


def test_openai_waits_and_tries_again_when_the_queue_is_full(folder: str):
    with live(engine_of(folder, CONFIG, rows=1, waiting=0)) as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, http_client=plain_http())
        with pytest.raises(RateLimitError, match="try again later"):
            client.completions.create(model=NAME, prompt="Once", n=2)
        patient = client.with_options(max_retries=5)
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(patient.completions.create, model=NAME, prompt="Once", seed=s) for s in range(3)]
            assert all(answer.result().choices[0].text for answer in asked)
        client.close()


# -- LangChain


def chat_model(server: Live, **http):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=NAME,
        base_url=f"{server.url}/v1",
        api_key=KEY,
        max_retries=0,
        max_tokens=12,
        extra_body={"paths": PATHS[:1]},
        **http,
    )


def test_langchain_invokes_streams_and_batches(server: Live, client: OpenAI):
    asked = {"model": NAME, "messages": CHAT, "max_tokens": 12, "extra_body": {"paths": PATHS[:1]}}
    expected = client.chat.completions.create(**asked)
    with plain_http() as http:
        model = chat_model(server, http_client=http)
        answer = model.invoke("Hello")
        assert answer.content == expected.choices[0].message.content
        assert answer.usage_metadata["output_tokens"] == expected.usage.completion_tokens
        assert "".join(chunk.content for chunk in model.stream("Hello")) == answer.content
        assert [other.content for other in model.batch(["Hello"] * 3)] == [answer.content] * 3

    async def invoke() -> str:
        async with httpx.AsyncClient(trust_env=False) as http:
            return (await chat_model(server, http_async_client=http).ainvoke("Hello")).content

    assert asyncio.run(invoke()) == answer.content


# -- many clients at once


async def _crowd(server: Live, clients: int) -> tuple[list[dict], int]:
    """What `clients` requests got, a third of them leaving in mid-stream; and how many were told to come back."""
    http = httpx.AsyncClient(trust_env=False, timeout=120, limits=httpx.Limits(max_connections=clients))
    openai = AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, http_client=http, timeout=120)
    finished: list[dict] = []
    refused = 0

    async def one(number: int) -> None:
        nonlocal refused
        prompt, seed = f"Once {number % 7}", number
        try:
            stream = await openai.completions.create(
                model=NAME, prompt=prompt, seed=seed, n=1 + number % 3, max_tokens=25, stream=True
            )
        except RateLimitError:
            refused += 1
            return
        texts: dict[int, str] = {}
        async with stream:
            count = 0
            async for chunk in stream:
                count += 1
                for choice in chunk.choices:
                    texts[choice.index] = texts.get(choice.index, "") + choice.text
                if number % 3 == 0 and count == 1 + number % 5:
                    return
        finished.append({"prompt": prompt, "seed": seed, "texts": [texts[i] for i in sorted(texts)]})

    await asyncio.gather(*(one(number) for number in range(clients)))
    await openai.close()
    return finished, refused


def test_200_clients_of_which_a_third_leave_get_their_own_texts_and_leave_nothing_behind(server: Live):
    clients = 200
    finished, refused = asyncio.run(_crowd(server, clients))
    leaving = len([number for number in range(clients) if number % 3 == 0])
    assert refused == 0  # the queue is longer than they are many
    assert len(finished) == clients - leaving
    server.until_idle()
    assert server.engine.scheduler.rows_in_flight == 0
    assert not server.engine.scheduler.groups
    for answer in finished[::9]:
        whole = server.http.post(
            "/v1/completions",
            json={"model": NAME, "prompt": answer["prompt"], "seed": answer["seed"], "n": len(answer["texts"]),
                  "max_tokens": 25},
        ).json()  # fmt: skip
        assert [choice["text"] for choice in whole["choices"]] == answer["texts"]


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_leaves_frees_its_rows(folder: str, streams):
    engine = engine_of(folder, CONFIG, rows=4)
    with live(engine) as server:
        slow = engine.scheduler.step

        def step():
            import time

            time.sleep(0.05)  # so that the text is not finished before the client leaves
            return slow()

        engine.scheduler.step = step
        body = {"model": NAME, "prompt": "Once", "n": 4, "max_tokens": 59, "stream": streams}
        if streams:
            with server.http.stream("POST", "/v1/completions", json=body) as answer:
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                server.http.post("/v1/completions", json=body, timeout=0.3)
        server.until_idle()
        assert engine.scheduler.written < 4 * 30


def test_a_client_with_a_timeout_of_its_own_gets_its_error(server: Live):
    impatient = OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=1e-4, http_client=plain_http())
    with impatient, pytest.raises(APITimeoutError):
        impatient.completions.create(model=NAME, prompt="Once", max_tokens=50)
    server.until_idle()


def test_a_stream_can_be_read_as_plain_events(server: Live):
    body = {"model": NAME, "prompt": "Once", "max_tokens": 3, "stream": True, "paths": PATHS[:1]}
    answer = server.http.post("/v1/completions", json=body)
    blocks = [block for block in answer.text.split("\n\n") if block]
    assert blocks[-1] == "data: [DONE]"
    assert all(json.loads(block.removeprefix("data: "))["choices"] for block in blocks[:-1])
