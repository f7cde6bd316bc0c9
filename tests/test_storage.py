"""A routing on disk or on the hub: the same bits after save and load, refused with a reason where it does not fit."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import stochroute as sr
from families import FAMILIES
from routing_folders import CONFIGS, FILES, contents, every_config, learn, llama, refused, rewrite, traces_of, walk
from stochroute.config import UnknownConfigKeys
from stochroute.storage import CONFIG_FILE, PARAMETER_FILE

# --- there and back


@every_config
def test_a_routing_with_learned_parameters_is_bit_for_bit_the_same_after_save_and_load(name, tmp_path):
    routed = sr.route(llama(), CONFIGS[name])
    learn(routed)
    expected, walked = {n: t.clone() for n, t in routed.noise_parameters().items()}, walk(routed)
    routed.save_pretrained(tmp_path / "a" / "deep" / "folder")
    assert set(contents(tmp_path / "a" / "deep" / "folder")) == FILES

    again = sr.RoutedModel.from_pretrained(llama(), tmp_path / "a" / "deep" / "folder")
    assert again.config == CONFIGS[name]
    assert again.noise_parameters().keys() == expected.keys()
    for key, parameter in again.noise_parameters().items():
        assert torch.equal(parameter, expected[key]), key
        assert parameter.dtype == torch.float32
    assert all(p.requires_grad for n, p in again.named_parameters() if not n.startswith("model."))
    assert torch.equal(walk(again), walked)


@every_config
def test_saving_twice_writes_the_same_bytes(name, tmp_path):
    routed = sr.route(llama(), CONFIGS[name])
    routed.save_pretrained(tmp_path / "one")
    sr.RoutedModel.from_pretrained(llama(), tmp_path / "one").save_pretrained(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_routing_saved_over_another_replaces_it(saved):
    routed = sr.route(llama(), CONFIGS["latent"])
    learn(routed, seed=6)
    routed.save_pretrained(saved)
    again = sr.RoutedModel.from_pretrained(llama(), str(saved))
    assert again.config == CONFIGS["latent"]
    assert torch.equal(walk(again), walk(routed))
    assert set(contents(saved)) == FILES


def test_the_files_are_plain_json_and_safetensors_that_everyone_may_read(saved):
    record = json.loads((saved / CONFIG_FILE).read_text())
    assert set(record) == {"noise_version", "model", "parameters_sha256", "routing"}
    assert record["noise_version"] == sr.noise.NOISE_VERSION
    assert record["model"]["model_type"] == "llama"
    assert sr.RoutingConfig.from_dict(record["routing"]) == CONFIGS["both"]
    stored = load_file(saved / PARAMETER_FILE)
    assert {n: tuple(t.shape) for n, t in stored.items() if n.startswith("structural")} == {
        "structural.mu": (3, 32),
        "structural.sigma": (3, 32),
    }
    for file in FILES:
        assert (saved / file).stat().st_mode & 0o444 == 0o444


def test_parameters_loaded_into_a_wider_or_narrower_model_keep_their_bits(saved):
    expected = load_file(saved / PARAMETER_FILE)
    for dtype in (torch.float64, torch.bfloat16):
        routed = sr.RoutedModel.from_pretrained(llama().to(dtype), saved)
        assert all(torch.equal(p.float(), expected[n]) for n, p in routed.noise_parameters().items())


def test_saving_leaves_the_model_and_its_parameters_as_they_were(tmp_path):
    routed = sr.route(llama(), CONFIGS["both"])
    learn(routed)
    before = {n: t.clone() for n, t in routed.state_dict().items()}
    walked = walk(routed)
    routed.save_pretrained(tmp_path)
    assert all(torch.equal(t, before[n]) for n, t in routed.state_dict().items())
    assert torch.equal(walk(routed), walked)


# --- other versions


@pytest.mark.parametrize("version", [sr.noise.NOISE_VERSION + 1, 0, 99])
def test_another_noise_version_is_refused_by_number(saved, version):
    rewrite(saved, lambda record: record.update(noise_version=version))
    message = refused(saved, llama(), f"noise version {version}")
    assert "stochroute version that made it" in message


def test_unknown_keys_of_a_newer_format_are_named_and_left_out(saved):
    rewrite(saved, lambda record: record["routing"].update(format_version=2, colour="red"))
    with pytest.warns(UnknownConfigKeys, match="colour"):
        routed = sr.RoutedModel.from_pretrained(llama(), saved)
    assert routed.config == CONFIGS["both"]


# --- another model


@pytest.mark.parametrize(("name", "value"), [("num_hidden_layers", 4), ("hidden_size", 64), ("num_attention_heads", 2)])
def test_a_routing_of_another_model_is_refused_with_the_difference_named(saved, name, value):
    here = getattr(FAMILIES["llama"].config(), name)
    message = refused(saved, llama(**{name: value}), "was made for another model")
    assert f"{name} {here} (this model: {value})" in message
    assert message.count("this model:") == 1


def test_a_routing_of_another_architecture_is_refused_with_the_difference_named(saved):
    message = refused(saved, FAMILIES["qwen2"].build(torch.float32), "was made for another model")
    assert "model_type 'llama' (this model: 'qwen2')" in message


def test_a_routing_serves_other_weights_of_the_same_shape(saved):
    other = llama()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    again = sr.RoutedModel.from_pretrained(other, saved)
    assert torch.equal(again.noise_parameters()["structural.mu"], load_file(saved / PARAMETER_FILE)["structural.mu"])


def test_a_model_that_is_routed_already_keeps_its_own_routing(saved):
    routed = sr.route(llama())
    before, walked = traces_of(routed.model), walk(routed)
    with pytest.raises(ValueError, match="routed already"):
        sr.RoutedModel.from_pretrained(routed.model, saved)
    assert traces_of(routed.model) == before
    assert torch.equal(walk(routed), walked)


# --- missing files


@pytest.mark.parametrize("name", ["no-such-folder", "nobody/no-such-routing", "./no/such/folder", "a b"])
def test_a_folder_that_is_neither_here_nor_on_the_hub_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(name, llama(), "is no folder here, and no repository on the hub", FileNotFoundError)
    assert repr(name) in message


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    refused(saved, llama(), name, FileNotFoundError)


def test_an_empty_folder_is_named(tmp_path):
    message = refused(tmp_path, llama(), CONFIG_FILE, FileNotFoundError)
    assert str(tmp_path) in message


# --- to the hub


@pytest.fixture
def uploads(monkeypatch) -> list[tuple[str, dict[str, bytes], str | None]]:
    """(repository, files, message) of every upload: the network is played, from the repository's creation on."""
    seen = []

    def create_repo(repo_id: str, **options) -> SimpleNamespace:
        return SimpleNamespace(repo_id=repo_id)

    def upload(self, working_dir: str, repo_id: str, files_timestamps: dict, commit_message=None, **options) -> str:
        seen.append((repo_id, contents(Path(working_dir)), commit_message))
        return f"https://huggingface.co/{repo_id}"

    card = SimpleNamespace(save=lambda path: Path(path).write_text("card"))
    monkeypatch.setattr("transformers.utils.hub.hf_api", lambda: SimpleNamespace(create_repo=create_repo))
    monkeypatch.setattr("transformers.utils.hub.create_and_tag_model_card", lambda *arguments, **options: card)
    monkeypatch.setattr(sr.RoutedModel, "_upload_modified_files", upload)
    return seen


def test_push_to_hub_uploads_the_two_files_of_the_routing(uploads, tmp_path):
    routed = sr.route(llama(), CONFIGS["both"])
    learn(routed)
    routed.save_pretrained(tmp_path)
    assert routed.push_to_hub("me/x", commit_message="learned") == "https://huggingface.co/me/x"
    assert uploads == [("me/x", {**contents(tmp_path), "README.md": b"card"}, "learned")]
    assert set(contents(tmp_path)) == FILES


@pytest.mark.parametrize(("named", "repository"), [({"repo_id": "me/x"}, "me/x"), ({}, "folder")])
def test_saving_with_push_to_hub_uploads_the_routing_that_it_saves(uploads, tmp_path, named, repository):
    routed = sr.route(llama(), CONFIGS["both"])
    learn(routed)
    routed.save_pretrained(tmp_path / "folder", push_to_hub=True, **named)
    saved = contents(tmp_path / "folder")
    assert set(saved) == FILES
    assert uploads == [(repository, {**saved, "README.md": b"card"}, None)]


def test_arguments_of_a_push_without_the_push_are_refused_by_name_and_nothing_is_saved(uploads, tmp_path):
    with pytest.raises(TypeError, match=r"repo_id.* set push_to_hub=True"):
        sr.route(llama()).save_pretrained(tmp_path / "folder", repo_id="me/x")
    assert contents(tmp_path) == {}
    assert uploads == []
