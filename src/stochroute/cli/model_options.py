"""The options that name a model and say where it runs, the same for every verb that loads one."""

from typing import Annotated

import typer

from stochroute.cli.errors import BadInput
from stochroute.loading import check_model_name

PANEL = "Model"
DTYPES = ("auto", "float64", "float32", "bfloat16", "float16")


def check_dtype(name: str) -> str:
    """The name; BadInput for one that is unknown."""
    if name not in DTYPES:
        raise BadInput(f"--dtype {name}: choose one of {', '.join(DTYPES)}")
    return name


def check_model(option: typer.CallbackParam, name: str | None) -> str | None:
    """The value of an option that names a model; BadInput for a folder that is not there."""
    check_model_name(name, option.opts[0])
    return name


Model = Annotated[
    str | None,
    typer.Option(
        help="Folder or Hub name. Default: the embedded story model.", callback=check_model, rich_help_panel=PANEL
    ),
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a GPU where there is one.", rich_help_panel=PANEL)
]
Dtype = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(DTYPES[1:])}; auto keeps that of the weights.", callback=check_dtype, rich_help_panel=PANEL
    ),
]
