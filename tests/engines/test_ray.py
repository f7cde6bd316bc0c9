"""Paths on a local Ray cluster: Ray Data, the command line on top of it, and a Ray Serve application.

python -m pytest -m ray tests/engines
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_models import SETTINGS, check_against_transformers, load, random_prompts

import stochroute as sr
from stochroute.cli import run
from stochroute.engines.agreement import Text
from stochroute.paths import format_path

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(1500),
    pytest.mark.filterwarnings("ignore"),  # Ray, vLLM and what they import have many
]
STRONG = sr.RoutingConfig(structural=sr.Structural(layers="all", strength=0.5))
OPTIONS = {**SETTINGS, "enforce_eager": True}
NEW_TOKENS = 16


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="needs Ray, in an environment of its own: see .ci/run")
    pytest.importorskip("vllm", reason="needs vLLM, in an environment of its own: see .ci/run")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def routing(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("routing")
    sr.route(load(model), STRONG).save_pretrained(folder)
    return str(folder)


def test_each_row_of_a_dataset_walks_its_own_path(cluster, model, routing, tmp_path):
    from stochroute.engines.ray import build_processor

    prompts = random_prompts(6, 3, 60)
    paths = [*sr.derive_paths(11, 5), None]
    rows = [
        {"name": f"row {i}", "tokens": prompt, "path": None if path is None else format_path(path)}
        for i, (prompt, path) in enumerate(zip(prompts, paths, strict=True))
    ]
    processor = build_processor(model, routing, new_tokens=NEW_TOKENS, dtype="float32", engine_options=OPTIONS)
    processor(cluster.data.from_items(rows)).write_parquet(str(tmp_path / "texts"))
    written = sorted(cluster.data.read_parquet(str(tmp_path / "texts")).take_all(), key=lambda row: row["name"])
    assert [row["name"] for row in written] == [row["name"] for row in rows]
    assert all(len(row["new_tokens"]) <= NEW_TOKENS for row in written)
    texts = [Text([int(token) for token in row["new_tokens"]]) for row in written]
    check_against_transformers(model, STRONG, prompts, paths, texts)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_command_line_writes_the_rows_of_the_transformers_engine(suffix, model, routing, tmp_path, capsys):
    prompts = ["ab", "Once upon", "xyz"]
    file = tmp_path / f"prompts.{suffix}"
    if suffix == "jsonl":
        file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"prompt": prompts}), file)
    common = ["generate", "--prompts-file", str(file), "--model", model, "--routing", routing, "--paths", "2"]
    common += ["--seed", "7", "--max-new-tokens", "8"]
    given = [word for name, value in OPTIONS.items() for word in ("--engine-option", f"{name}={json.dumps(value)}")]
    outputs = {}
    for engine, options in (("transformers", []), ("ray", given)):
        output = tmp_path / f"{engine}.jsonl"
        assert run([*common, "--engine", engine, "--output", str(output), *options]) == 0, capsys.readouterr().err
        outputs[engine] = [json.loads(line) for line in output.read_text().splitlines()]
    for ours, theirs in zip(outputs["ray"], outputs["transformers"], strict=True):
        assert " on ray " in ours["receipt"].pop("engine")
        assert theirs["receipt"].pop("engine").startswith("transformers")
        assert ours == theirs


def test_augment_makes_the_rows_of_the_embedded_model_and_they_replay_there(tmp_path, capsys):
    pytest.importorskip("datasets", reason="augment reads its source by datasets")
    stories = ["Once upon a time there lived a cat.", "One day a dog went to the sea.", "A fox found a golden key."]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))
    common = ["augment", str(tmp_path / "in.jsonl"), "--template", "{text:4}", "--paths", "2", "--seed", "7"]
    common += ["--max-new-tokens", "24", "--stop", ".", "--batch", "2", "--near", "off"]
    options = {**OPTIONS, "max_model_len": None}
    given = [word for name, value in options.items() for word in ("--engine-option", f"{name}={json.dumps(value)}")]
    rows = {}
    for engine, more in (("transformers", ["--device", "cpu"]), ("ray", given)):
        output = tmp_path / f"{engine}.jsonl"
        assert run([*common, "--engine", engine, "--output", str(output), *more]) == 0, capsys.readouterr().err
        rows[engine] = [json.loads(line) for line in output.read_text().splitlines()]
        made = [json.loads(row.pop("settings")) for row in rows[engine]]
        assert all((" on ray " in settings["engine"]) == (engine == "ray") for settings in made)
    assert rows["ray"] == rows["transformers"] != []
    assert run(["augment", "--replay", str(tmp_path / "ray.jsonl"), "--device", "cpu", "--rows", "0"]) == 0
    said = capsys.readouterr()
    assert f"{len(rows['ray'])} of {len(rows['ray'])} rows made again" in said.out
    assert " on ray " in said.err


def test_a_serve_application_answers_along_paths(cluster, model, routing):
    import httpx
    from ray import serve

    from stochroute.engines.ray import build_app

    options = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 1}}
    app = build_app(model, routing, name="tiny", dtype="float32", engine_options=OPTIONS, deployment_config=options)
    serve.start(http_options={"host": "127.0.0.1", "port": 8123})
    serve.run(app)
    try:
        paths = sr.derive_paths(7, 2)

        def ask(**fields: Any) -> Any:
            body = {"model": "tiny", "prompt": "ab", "temperature": 0, "max_tokens": 8, **fields}
            return httpx.post("http://127.0.0.1:8123/v1/completions", json=body, timeout=300, trust_env=False)

        texts = [ask(vllm_xargs={"stochroute_path": format_path(p)}).json()["choices"][0]["text"] for p in paths]
        together = ask(n=2, vllm_xargs={"stochroute_seed": 7}).json()["choices"]
        assert [c["text"] for c in sorted(together, key=lambda c: c["index"])] == texts
        assert len({*texts, ask().json()["choices"][0]["text"]}) == 3
        assert ask(vllm_xargs={"stochroute_path": "nonsense"}).status_code == 400
        assert ask().status_code == 200
    finally:
        serve.shutdown()


def test_a_routing_that_vllm_cannot_walk_is_refused_before_anything_starts(model, tmp_path: Path):
    from stochroute.engines.ray import build_app, build_processor

    attention = sr.RoutingConfig(structural=None, attention=sr.Attention())
    for build in (
        lambda: build_processor(model, attention, new_tokens=4),
        lambda: build_app(model, attention, name="tiny"),
    ):
        with pytest.raises(ValueError, match="attention routing is not offered on vLLM"):
            build()
