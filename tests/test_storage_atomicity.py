"""A routing is never half-written: a save that fails leaves what was there."""

import os
import tempfile
from pathlib import Path

import pytest
import torch

import stochroute as sr
from routing_folders import CONFIGS, FILES, contents, learn, llama, walk
from stochroute.storage import CONFIG_FILE


@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("failing", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize(
    "interrupt", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "interrupted"]
)
def test_a_failing_write_leaves_the_earlier_routing_and_no_other_file(saved, monkeypatch, function, failing, interrupt):
    before = contents(saved)
    routed = sr.route(llama(), CONFIGS["latent"])
    learn(routed, seed=6)
    real, calls = getattr(os, function), []

    def fail_once(*args, **kwargs):
        calls.append(args)
        if len(calls) == failing + 1:
            raise interrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, function, fail_once)
        with pytest.raises(type(interrupt)):
            routed.save_pretrained(saved)
    assert len(calls) > failing
    assert contents(saved) == before
    assert sr.RoutedModel.from_pretrained(llama(), saved).config == CONFIGS["both"]


@pytest.mark.parametrize("failing", [0, 1], ids=["first", "second"])
def test_a_failing_first_save_leaves_nothing_that_could_pass_for_a_routing(tmp_path, monkeypatch, failing):
    real, calls = os.replace, []

    def fail_once(*args, **kwargs):
        calls.append(args)
        if len(calls) == failing + 1:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail_once)
        with pytest.raises(OSError, match="No space left"):
            sr.route(llama()).save_pretrained(tmp_path / "new")
    assert CONFIG_FILE not in contents(tmp_path / "new")
    assert not [name for name in contents(tmp_path / "new") if name.startswith(".")]


def test_a_file_in_the_folder_s_place_is_an_error_and_stays(tmp_path):
    (tmp_path / "taken").write_text("mine")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(OSError, match="taken"):
            sr.route(llama()).save_pretrained(folder)
    assert contents(tmp_path) == {"taken": b"mine"}


def test_a_folder_in_a_file_s_place_is_an_error_and_leaves_no_other_file(tmp_path):
    for name in FILES:
        folder = tmp_path / name.replace(".", "-")
        (folder / name).mkdir(parents=True)
        with pytest.raises(OSError, match=name):
            sr.route(llama()).save_pretrained(folder)
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_an_unwritable_folder_is_an_error_and_the_earlier_routing_stays(saved, monkeypatch):
    def unwritable(*arguments, **options):
        raise PermissionError(13, "Permission denied")  # root may write anywhere, so the refusal is played

    before = contents(saved)
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "mkdtemp", unwritable)
        with pytest.raises(PermissionError):
            sr.route(llama(), CONFIGS["latent"]).save_pretrained(saved)
    assert contents(saved) == before
    if Path("/proc/self").exists():  # a file system that refuses even root
        with pytest.raises(OSError, match="proc"):
            sr.route(llama()).save_pretrained("/proc/routing")


def test_a_model_whose_routing_could_not_be_saved_still_walks(tmp_path):
    routed = sr.route(llama())
    before = walk(routed)
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="taken"):
        routed.save_pretrained(tmp_path / "taken")
    assert torch.equal(walk(routed), before)
