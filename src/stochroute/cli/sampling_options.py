"""The options that turn sampling on, the same for every verb that writes texts."""

from typing import Annotated

import typer

PANEL = "Choice of tokens"

Temperature = Annotated[
    float | None,
    typer.Option(help="This and the next three turn sampling on, drawn from the path.", rich_help_panel=PANEL),
]
TopK = Annotated[int | None, typer.Option(help="Keep the k likeliest tokens.", rich_help_panel=PANEL)]
TopP = Annotated[float | None, typer.Option(help="Keep this share of probability.", rich_help_panel=PANEL)]
MinP = Annotated[
    float | None, typer.Option(help="Drop tokens below this share of the likeliest.", rich_help_panel=PANEL)
]
Spread = Annotated[
    bool,
    typer.Option(
        "--spread",
        help="Share what is likely out among a prompt's paths: more different texts, each as likely as before.",
        rich_help_panel=PANEL,
    ),
]
