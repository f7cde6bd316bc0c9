"""Whatever ends a run, and whenever: the last good checkpoint is kept, and the run that goes on from it has the
losses of one that was never ended."""

import errno
import shutil
from pathlib import Path

import pytest
import torch

import stochroute as sr
from stochroute.training import (
    BoundPaths,
    CheckpointFailed,
    FreshPaths,
    RoutedTrainer,
    TornCheckpoint,
    TrainingDiverged,
    Variational,
)
from stochroute.training.checkpoints import RECORD_FILE, fault_of, last_good
from training_runs import ABSOLUTE, CONFIG, INFERRED, At, losses, tiny_examples, tiny_model, tiny_trainer

SAVED = {"save_strategy": "steps", "save_steps": 5, "logging_steps": 3}


class Killed(BaseException):
    """Like SIGKILL, nothing in the code under test catches it."""


def kill() -> None:
    raise Killed


def dropping_trainer(output: Path, **settings) -> RoutedTrainer:
    """A run that depends on everything a checkpoint has to bring back: the order, dropout, annealing, step by step."""
    return tiny_trainer(
        output,
        Variational(beta=0.01, anneal_steps=10),
        routed=sr.route(tiny_model(dropout=0.2), ABSOLUTE),
        **{**SAVED, **settings},
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[int, float]:
    trainer = dropping_trainer(tmp_path_factory.mktemp("whole"))
    trainer.train()
    assert losses(trainer).keys() == {3, 5, 6, 9, 10, 12}  # also where a checkpoint is written
    return losses(trainer)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run with checkpoints 5, 10 and 12; copy it before changing it."""
    output = tmp_path_factory.mktemp("finished")
    tiny_trainer(output, **SAVED).train()
    return output


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("moment", [6, 7, 9, "weights", "optimizer", "record"])
def test_a_run_killed_at_any_moment_goes_on_to_the_losses_of_an_unkilled_one(tmp_path, whole, moment, monkeypatch):
    """The last three: while checkpoint 10 is being written."""
    with monkeypatch.context() as patched:
        callbacks = [At(moment, kill)] if isinstance(moment, int) else []
        name = {
            "weights": "transformers.PreTrainedModel.save_pretrained",
            "optimizer": "stochroute.training.trainer.RoutedTrainer._save_scaler",
            "record": "stochroute.training.trainer.seal",
        }.get(moment)
        trainer = dropping_trainer(tmp_path, callbacks=callbacks)
        if name:
            callbacks = [At(10, lambda: patched.setattr(name, lambda *_, **__: kill()))]
            trainer.add_callback(callbacks[0])
        with pytest.raises(Killed):
            trainer.train()
    resumed = dropping_trainer(tmp_path)
    if name:
        with pytest.warns(TornCheckpoint, match="checkpoint-10"):
            resumed.train(resume_from_checkpoint=True)
    else:
        resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == whole


@pytest.mark.parametrize(
    "settings",
    [{"objective": FreshPaths(), "trained": "noise", **SAVED}, {**INFERRED, **SAVED}],
    ids=["noise", "inferred"],
)
def test_noise_alone_and_what_infers_it_go_on_as_well(tmp_path, settings):
    unkilled = tiny_trainer(tmp_path / "unkilled", **settings)
    unkilled.train()
    with pytest.raises(Killed):
        tiny_trainer(tmp_path / "killed", callbacks=[At(8, kill)], **settings).train()
    resumed = tiny_trainer(tmp_path / "killed", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == losses(unkilled)
    with pytest.raises(ValueError, match=rf"objective {type(settings['objective']).__name__}.*BoundPaths"):
        tiny_trainer(tmp_path / "killed", **{**settings, "objective": BoundPaths()}).train(resume_from_checkpoint=True)


def test_a_checkpoint_holds_the_routing_and_the_model_in_their_own_formats(finished):
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(finished / "checkpoint-12")
    routed = sr.RoutedModel.from_pretrained(model, finished / "checkpoint-12")
    assert not torch.equal(routed.structural.sigma, torch.ones_like(routed.structural.sigma))
    assert routed.config == CONFIG
    assert model.config.use_cache is True


def test_every_file_of_a_checkpoint_that_is_cut_short_or_gone_is_named(copied):
    folder = copied / "checkpoint-12"
    assert fault_of(folder) is None
    for file in [f for f in folder.rglob("*") if f.is_file() and f.name != RECORD_FILE]:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        assert file.name in fault_of(folder)
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert fault_of(folder) == f"{file.name} is corrupt"
        file.unlink()
        assert fault_of(folder) == f"{file.name} is missing"
        file.write_bytes(content)
    record = (folder / RECORD_FILE).read_bytes()
    (folder / RECORD_FILE).write_bytes(record[:40])
    assert RECORD_FILE in fault_of(folder)
    (folder / RECORD_FILE).unlink()
    assert RECORD_FILE in fault_of(folder)
    (folder / RECORD_FILE).write_bytes(record)
    assert fault_of(folder) is None


def test_torn_checkpoints_are_passed_over_with_a_warning(copied):
    (copied / "checkpoint-12" / "optimizer.pt").unlink()
    (copied / "checkpoint-10" / RECORD_FILE).unlink()
    with pytest.warns(TornCheckpoint) as caught:
        assert last_good(copied) == copied / "checkpoint-5"
    assert [str(w.message).split()[1] for w in caught] == [str(copied / f"checkpoint-{n}") for n in (12, 10)]


@pytest.mark.filterwarnings("ignore::stochroute.training.TornCheckpoint")
def test_a_torn_checkpoint_that_is_asked_for_is_refused_and_the_last_good_one_named(copied):
    (copied / "checkpoint-12" / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"optimizer\.pt has 0 bytes.*last good one is .*checkpoint-10"):
        tiny_trainer(copied, **SAVED).train(resume_from_checkpoint=str(copied / "checkpoint-12"))


def test_a_run_that_has_made_all_its_steps_is_refused_and_goes_on_with_more(copied):
    with pytest.raises(ValueError, match=r"checkpoint-12 has made all of max_steps=12: raise max_steps"):
        tiny_trainer(copied, **SAVED).train(resume_from_checkpoint=True)
    longer = tiny_trainer(copied, **{**SAVED, "max_steps": 15})
    longer.train(resume_from_checkpoint=True)
    assert longer.state.global_step == 15


def test_there_must_be_a_checkpoint_to_go_on_from(tmp_path):
    with pytest.raises(ValueError, match="no whole checkpoint"):
        tiny_trainer(tmp_path).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"objective": FreshPaths()}, r"objective BoundPaths\(\), and this run has FreshPaths\(\)"),
        ({"path_seed": 8}, "path_seed 7, and this run has 8"),
        ({"trained": "noise"}, "trained all, and this run has noise"),
        ({"config": ABSOLUTE}, "another routing"),
        ({"routed": sr.route(tiny_model(width=32), CONFIG)}, "another model"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(finished, settings, named):
    with pytest.raises(ValueError, match=named):
        tiny_trainer(finished, **{"objective": BoundPaths(), **settings}).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("where", ["torch.save", "stochroute.storage._replace_all", "stochroute.training.trainer.seal"])
def test_a_full_disk_ends_the_run_with_a_clear_error_and_the_last_good_checkpoint(tmp_path, monkeypatch, where):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    filling = At(10, lambda: monkeypatch.setattr(where, full))
    trainer = tiny_trainer(tmp_path, callbacks=[filling], save_total_limit=1, **SAVED)
    with pytest.raises(CheckpointFailed, match=r"checkpoint-10 .*MiB are free.*last good .*checkpoint-5"):
        trainer.train()
    assert [f.name for f in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]
    assert fault_of(tmp_path / "checkpoint-5") is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "trainer_state.json"])
def test_a_device_that_is_really_full_is_told_from_a_bug(tmp_path, file):
    def fill():
        (tmp_path / "checkpoint-10").mkdir()
        (tmp_path / "checkpoint-10" / file).symlink_to("/dev/full")

    with pytest.raises(CheckpointFailed, match=r"checkpoint-10 .*MiB are free.*last good .*checkpoint-5"):
        tiny_trainer(tmp_path, callbacks=[At(10, fill)], **SAVED).train()
    assert [f.name for f in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]


def test_a_bug_while_saving_keeps_its_own_error(tmp_path, monkeypatch):
    def buggy(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("stochroute.training.trainer.seal", buggy)
    with pytest.raises(RuntimeError, match="shapes differ"):
        tiny_trainer(tmp_path, **SAVED).train()


def test_old_checkpoints_go_only_when_the_new_one_is_whole(tmp_path):
    tiny_trainer(tmp_path, save_total_limit=1, **SAVED).train()
    assert [f.name for f in tmp_path.glob("checkpoint-*")] == ["checkpoint-12"]
    assert fault_of(tmp_path / "checkpoint-12") is None


@pytest.mark.parametrize("step", [6, 10])
def test_a_loss_that_is_no_number_ends_the_run_and_spares_the_last_good_checkpoint(tmp_path, step):
    """At step 10 what is broken would go into a checkpoint before the next loss shows it."""

    def spoil():
        with torch.no_grad():
            trainer.routed.structural.mu.fill_(float("nan"))

    trainer = tiny_trainer(tmp_path, callbacks=[At(step, spoil)], probe_paths=0, **SAVED)
    message = "the loss is nan at step 7" if step == 6 else "no finite number after step 10"
    with pytest.raises(TrainingDiverged, match=rf"{message}: lower learning_rate.*last good .*checkpoint-5"):
        trainer.train()
    assert last_good(tmp_path) == tmp_path / "checkpoint-5"
    assert not (tmp_path / "checkpoint-10").exists()


def test_the_best_checkpoint_by_evaluation_can_be_had_back(tmp_path):
    trainer = tiny_trainer(
        tmp_path,
        eval_dataset=tiny_examples(8),
        eval_strategy="steps",
        eval_steps=5,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        learning_rate=0.3,  # so that it gets worse
        max_steps=10,
        **{name: SAVED[name] for name in ("save_strategy", "save_steps")},
    )
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    fresh = sr.RoutedModel.from_pretrained(tiny_model(), best)
    assert torch.equal(trainer.routed.structural.sigma, fresh.structural.sigma)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric, rel=1e-6)
