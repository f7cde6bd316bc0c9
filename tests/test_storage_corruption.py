"""Corrupt files of a routing are refused with the file and the remedy named, and leave the model as it was."""

import hashlib
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save
from torch import Tensor, nn

import stochroute as sr
from routing_folders import CONFIGS, learn, llama, refused, rewrite, traces_of
from stochroute.storage import CONFIG_FILE, PARAMETER_FILE


def put_parameters(folder: Path, weights: bytes) -> None:
    """Replaces the parameters and makes the config agree with them, as a forger would."""
    (folder / PARAMETER_FILE).write_bytes(weights)
    rewrite(folder, lambda record: record.update(parameters_sha256=hashlib.sha256(weights).hexdigest()))


@cache
def good_files() -> tuple[bytes, bytes]:
    """config and parameters of the small routing that the corruption tests damage."""
    with tempfile.TemporaryDirectory() as folder:
        routed = sr.route(llama(), CONFIGS["latent"])
        learn(routed)
        routed.save_pretrained(folder)
        routed.detach()
        return (Path(folder) / CONFIG_FILE).read_bytes(), (Path(folder) / PARAMETER_FILE).read_bytes()


@cache
def shared_llama() -> nn.Module:
    return llama()


def put(folder: Path, config: bytes, parameters: bytes) -> Path:
    (folder / CONFIG_FILE).write_bytes(config)
    (folder / PARAMETER_FILE).write_bytes(parameters)
    return folder


on_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@on_one_folder
@given(place=st.integers(0, 2**32), flip=st.integers(1, 255))
@example(place=0, flip=1)
@example(place=-1, flip=128)
def test_any_flipped_byte_of_the_parameters_is_refused(tmp_path, place, flip):
    config, parameters = good_files()
    damaged = bytearray(parameters)
    damaged[place % len(damaged)] ^= flip
    refused(put(tmp_path, config, bytes(damaged)), shared_llama(), f"{PARAMETER_FILE} is truncated, corrupt")


@on_one_folder
@given(length=st.integers(0, 2**32))
@example(length=0)
@example(length=7)
def test_any_truncation_of_the_parameters_is_refused(tmp_path, length):
    config, parameters = good_files()
    damaged = parameters[: length % len(parameters)]
    refused(put(tmp_path, config, damaged), shared_llama(), f"{PARAMETER_FILE} is truncated, corrupt")


@on_one_folder
@given(extra=st.binary(min_size=1, max_size=20))
def test_anything_appended_to_the_parameters_is_refused(tmp_path, extra):
    config, parameters = good_files()
    refused(put(tmp_path, config, parameters + extra), shared_llama(), f"{PARAMETER_FILE} is truncated, corrupt")


@on_one_folder
@given(length=st.integers(0, 2**32))
def test_any_truncation_of_the_config_is_refused(tmp_path, length):
    config, parameters = good_files()
    damaged = config[: length % (len(config) - 2)]  # without the closing brace and the line's end
    refused(put(tmp_path, damaged, parameters), shared_llama(), f"{CONFIG_FILE} is corrupt")


@pytest.mark.filterwarnings("ignore::stochroute.config.UnknownConfigKeys")  # the flipped byte was the version's
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 2**32), byte=st.integers(0, 255))
def test_any_other_byte_in_the_config_gives_a_valid_routing_or_a_value_error(tmp_path, place, byte):
    config, parameters = good_files()
    damaged = bytearray(config)
    damaged[place % len(damaged)] = byte
    model = shared_llama()
    before = traces_of(model)
    try:
        routed = sr.RoutedModel.from_pretrained(model, put(tmp_path, bytes(damaged), parameters))
    except ValueError as error:
        assert str(error)  # noqa: PT017
    else:
        routed.detach()
    assert traces_of(model) == before


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"3",
        b'"routing"',
        b"{}",
        b"\xff\xfe{",
        b"\x80",
        b'{"noise_version": 1}',
        b"\x00" * 40,
    ],
    ids=repr,
)
def test_a_config_that_is_no_routing_is_refused_by_file_with_the_remedy(saved, text):
    (saved / CONFIG_FILE).write_bytes(text)
    assert "save the routing again" in refused(saved, llama(), f"{CONFIG_FILE} is corrupt")


@pytest.mark.parametrize("key", ["noise_version", "model", "parameters_sha256", "routing"])
def test_a_config_that_lacks_a_key_is_refused_by_that_key(saved, key):
    rewrite(saved, lambda record: record.pop(key))
    assert key in refused(saved, llama(), f"{CONFIG_FILE} is corrupt")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("model", f"{CONFIG_FILE} is corrupt|another model"),
        ("parameters_sha256", f"{CONFIG_FILE} is corrupt|truncated, corrupt or of another routing"),
        ("routing", "JSON object"),
        ("noise_version", f"{CONFIG_FILE} is corrupt|noise version"),
    ],
)
@pytest.mark.parametrize("value", [None, [], 5, "text"], ids=repr)
def test_a_config_with_a_value_of_the_wrong_type_is_refused(saved, key, reason, value):
    rewrite(saved, lambda record: record.update({key: value}))
    refused(saved, llama(), reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda routing: routing["structural"].update(strength=-1), "strength"),
        (lambda routing: routing["structural"].update(layers=[0, 99]), r"names \[99\]"),
        (lambda routing: routing["structural"].update(strenght=1), "did you mean 'strength'"),
        (lambda routing: routing["attention"].update(distribution="cauchy"), "distribution"),
        (lambda routing: routing.update(format_version=0), "format_version"),
        (lambda routing: routing.update(experts={}), "llama"),
    ],
)
def test_a_routing_whose_config_is_invalid_or_impossible_here_is_refused(saved, change, reason):
    rewrite(saved, lambda record: change(record["routing"]))
    refused(saved, llama(), reason)


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not safetensors at all", id="text"),
        pytest.param(b"\xff" * 64, id="a header of 2⁶⁴ bytes"),
        pytest.param((8).to_bytes(8, "little") + b"{broken}", id="a broken header"),
        pytest.param(b"\x80\x04\x95" + b"." * 64, id="a pickle"),
    ],
)
def test_parameters_that_are_no_safetensors_are_refused_even_when_the_hash_agrees(saved, weights):
    put_parameters(saved, weights)
    assert "save the routing again" in refused(saved, llama(), f"{PARAMETER_FILE} is corrupt")


def test_foreign_safetensors_are_refused_by_the_hash(saved):
    (saved / PARAMETER_FILE).write_bytes(save({"weight": torch.zeros(3)}))
    refused(saved, llama(), "of another routing")


def missing(parameters: dict[str, Tensor]) -> None:
    del parameters["structural.mu"]


def added(parameters: dict[str, Tensor]) -> None:
    parameters["structural.nu"] = torch.zeros(2)


def misshapen(parameters: dict[str, Tensor]) -> None:
    parameters["structural.sigma"] = parameters["structural.sigma"][:, :-1].contiguous()


@pytest.mark.parametrize("change", [missing, added, misshapen, dict.clear])
def test_parameters_that_do_not_fit_are_refused_with_both_sides_named(saved, change):
    parameters = load_file(saved / PARAMETER_FILE)
    change(parameters)
    put_parameters(saved, save(parameters))
    message = refused(saved, llama(), "holds the parameters .* this model needs")
    assert "structural.sigma" in message
