"""Two processes give the losses of one, and a run that is really killed goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import stochroute as sr
from training_runs import INFERRED, SHARDED, losses, tiny_model, tiny_trainer, uneven_examples

HERE = Path(__file__).parent
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def ended(output: Path, *arguments: str, launcher: list[str] | None = None) -> tuple[int, str]:
    """The exit code of the script, and the end of what it wrote to standard error."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(HERE)}
    command = [sys.executable, *(launcher or []), str(HERE / "training_runs.py"), str(output), *arguments]
    run = subprocess.run(command, check=False, env=environment, capture_output=True, encoding="utf-8", timeout=200)
    return run.returncode, run.stderr[-3000:]


def approximately(by_step: dict[int, float]):
    return pytest.approx({str(step): loss for step, loss in by_step.items()}, rel=1e-5)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> tuple[Path, dict]:
    """The output and the log of two processes."""
    output = tmp_path_factory.mktemp("two")
    code, error = ended(output, "--batch", "4", launcher=TORCHRUN)
    assert code == 0, error
    return output, json.loads((output / "log.json").read_text())


def test_two_processes_under_ddp_give_the_losses_of_one(two_processes, tmp_path):
    output, log = two_processes
    one = tiny_trainer(tmp_path, eval_dataset=uneven_examples(10))
    one.train()
    assert log["replicated"] == approximately(losses(one))
    assert log["evaluation"] == pytest.approx(one.evaluate()["eval_loss"], rel=1e-5)
    # and one process goes on from what two have written
    resumed = tiny_trainer(output)
    resumed.train(resume_from_checkpoint=str(output / "checkpoint-10"))
    assert losses(resumed) == pytest.approx(losses(one), rel=1e-5)


def test_two_processes_under_fsdp2_give_the_losses_of_one_and_go_on_from_a_checkpoint(two_processes, tmp_path):
    output, log = two_processes
    one = tiny_trainer(tmp_path, **SHARDED)
    one.train()
    assert log["sharded"] == approximately(losses(one))
    assert log["resumed"] == approximately(losses(one))
    saved = sr.RoutedModel.from_pretrained(tiny_model(), output / "sharded" / "checkpoint-12")
    for name, parameter in saved.noise_parameters().items():
        assert torch.allclose(parameter, one.routed.noise_parameters()[name], atol=1e-4), name


def test_what_infers_the_paths_is_trained_by_two_processes_as_by_one(two_processes, tmp_path):
    output, log = two_processes
    one = tiny_trainer(tmp_path, **INFERRED)
    one.train()
    for name in ("inferred", "sharded, inferred", "resumed, inferred"):
        assert log[name] == approximately(losses(one)), name
    saved = load_file(output / "inferred" / "checkpoint-12" / "posterior.safetensors")
    for name, parameter in one.model.posterior.named_parameters():
        assert torch.allclose(saved[name], parameter, atol=1e-4), name


def test_a_process_that_is_killed_goes_on_to_the_losses_of_one_that_was_not(tmp_path):
    code, error = ended(tmp_path, "--killed-at", "8")
    assert code == -signal.SIGKILL, error
    resumed = tiny_trainer(tmp_path, save_strategy="steps", save_steps=5)
    resumed.train(resume_from_checkpoint=True)
    whole = tiny_trainer(tmp_path / "whole")
    whole.train()
    assert losses(resumed) == losses(whole)
