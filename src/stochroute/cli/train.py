"""`stochroute train`: noise that learns, from a file.

stochroute train --config train.yaml
"""

from logging import getLogger
from typing import Annotated, Any

import typer

from stochroute.cli.errors import BadInput, Interrupted
from stochroute.cli.model_options import DTYPES
from stochroute.errors import one_line
from stochroute.loading import check_model_name, load_model


def train(
    config: Annotated[str, typer.Option(metavar="FILE", help="YAML; the keys of stochroute.training.recipe.Recipe.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in its output.")
    ] = False,
) -> None:
    """Train the noise of a model, alone or with its weights, on examples bound to paths.

    Example, train.yaml:

    \b
    output: runs/stories
    model: ./my-model        # or a name on the Hub; left out: the embedded one
    data: {train: stories.jsonl, prompt: prompt, text: text, id: id}
    routing: {structural: {form: latent, layers: all, strength: 0.5}}
    objective: bound         # fresh, inferred, variational, best_of_k, marginal
    train: adapter           # noise, all
    adapter: {rank: 8}
    seed: 7
    trainer: {max_steps: 1000, learning_rate: 1e-3}   # TrainingArguments

    Then: stochroute train --config train.yaml
    """
    import torch  # pyright: ignore[reportUnusedImport]  # noqa: F401

    getLogger("torch").setLevel("ERROR")  # what these log while they load is about their own work
    getLogger("torchao").setLevel("ERROR")
    try:
        from stochroute.training.checkpoints import checkpoints_in
        from stochroute.training.recipe import build_trainer, read_recipe
    except ImportError as error:
        raise BadInput(f"training needs more packages ({one_line(error)}): pip install 'stochroute[train]'") from error

    recipe = read_recipe(config)
    if recipe.dtype not in DTYPES:
        raise BadInput(f"dtype {recipe.dtype}: choose one of {', '.join(DTYPES)}")
    check_model_name(recipe.model)
    found = checkpoints_in(recipe.output)
    if found and not resume:
        raise BadInput(f"output {recipe.output}: holds {found[-1].name} already; give --resume, or another output")
    loaded = load_model(recipe.model, "cpu", recipe.dtype)
    trainer = build_trainer(recipe, loaded.model, loaded.tokenizer)
    try:
        trainer.train(resume_from_checkpoint=resume)
    except KeyboardInterrupt as error:
        saved = checkpoints_in(recipe.output)
        raise Interrupted(
            f"interrupted after step {trainer.state.global_step}; "
            + (f"{saved[-1]} is kept, go on with --resume" if saved else "there is no checkpoint yet")
        ) from error
    finally:
        _close_progress(trainer)
    trainer.save_model(recipe.output)
    if trainer.is_world_process_zero():
        if recipe.train != "noise":
            loaded.tokenizer.save_pretrained(recipe.output)
        _report(trainer, recipe.output)


def _close_progress(trainer: Any) -> None:
    """Ends the line of the progress bar, which stays open when training ends in an error."""
    from transformers import ProgressCallback

    progress: Any = trainer.pop_callback(ProgressCallback)
    if progress is not None and progress.training_bar is not None:
        progress.training_bar.close()


def _report(trainer: Any, output: str) -> None:
    measured = [entry for entry in trainer.state.log_history if "transmission" in entry]
    last = f"; transmission {measured[-1]['transmission']:.3g} nats a token" if measured else ""
    typer.echo(f"{trainer.state.global_step} steps, seed {trainer.path_seed}{last}; the routing is in {output}")
