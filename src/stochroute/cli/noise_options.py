"""The options that describe a routing, the same for every verb that makes one."""

from typing import Annotated

import typer

from stochroute.config import DEFAULT_BUDGET, Structural

PANEL = "Noise inside the model"
_DEFAULT = Structural()

RoutingFolder = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="A saved routing. Default: what the options below describe; without any, of the embedded model its own.",
        rich_help_panel=PANEL,
    ),
]
Strength = Annotated[
    str | None,
    typer.Option(
        help=(
            f"Size of the noise over the activation's; or one a layer: 0.1,0.2; or auto: a budget of {DEFAULT_BUDGET}. "
            f"Default: auto, for the embedded model {_DEFAULT.strength}."
        ),
        rich_help_panel=PANEL,
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        help="Effect of the noise, in nats of KL(routed ‖ clean) a position; finds the strength. See: calibrate.",
        rich_help_panel=PANEL,
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(help="all, upper_third, middle_third, lower_third, or numbers: 0,3 or 2-5.", rich_help_panel=PANEL),
]
Hold = Annotated[
    str | None,
    typer.Option(help=f"Tokens that share one draw, or: sequence. Default: {_DEFAULT.hold}.", rich_help_panel=PANEL),
]
Form = Annotated[
    str | None,
    typer.Option(
        help="shared, independent, latent, or spread: latent, and the paths of a prompt point away from each other.",
        rich_help_panel=PANEL,
    ),
]
Span = Annotated[str | None, typer.Option(help="generated or all positions.", rich_help_panel=PANEL)]
AttentionStrength = Annotated[
    float | None, typer.Option(help="Noise on attention scores, in nats. Default: off.", rich_help_panel=PANEL)
]
ExpertStrength = Annotated[
    float | None, typer.Option(help="Noise on the choice of experts, in nats. Default: off.", rich_help_panel=PANEL)
]
