"""The command line: `stochroute VERB`, one file a verb.

Errors of the user's making end in one line on standard error and exit code 2, at one place: `run`. Heavy packages are
imported by the verbs when they work, so that `--help` stays fast.
"""

import sys
import warnings
from typing import Annotated, Any, TextIO

import typer

from stochroute import __version__
from stochroute.cli.augment import augment as augment_verb
from stochroute.cli.bench import bench as bench_verbs
from stochroute.cli.calibrate import calibrate as calibrate_verb
from stochroute.cli.chat import chat as chat_verb
from stochroute.cli.errors import Failed, Interrupted, came_from_ctrl_c, is_for_the_user
from stochroute.cli.evaluate import evaluate as evaluate_verb
from stochroute.cli.explore import explore as explore_verb
from stochroute.cli.export import export as export_verb
from stochroute.cli.generate import generate as generate_verb
from stochroute.cli.lm_eval import lm_eval as lm_eval_verb
from stochroute.cli.robustness import robustness as robustness_verb
from stochroute.cli.serve import serve as serve_verb
from stochroute.cli.train import train as train_verb
from stochroute.cli.transmission import transmission as transmission_verb
from stochroute.cli.uncertainty import uncertainty as uncertainty_verb
from stochroute.cli.write import write as write_verb
from stochroute.errors import one_line

app = typer.Typer(
    name="stochroute",
    help="Replayable paths through causal language models: many texts from one prompt, each one id.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _verb in (
    ("generate", generate_verb),
    ("chat", chat_verb),
    ("write", write_verb),
    ("augment", augment_verb),
    ("explore", explore_verb),
    ("serve", serve_verb),
    ("calibrate", calibrate_verb),
    ("train", train_verb),
    ("evaluate", evaluate_verb),
    ("transmission", transmission_verb),
    ("uncertainty", uncertainty_verb),
    ("robustness", robustness_verb),
    ("export", export_verb),
):
    app.command(_name)(_verb)
# everything after the verb, --help too, is for the harness
_ALL_ARGUMENTS: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
app.command("lm-eval", context_settings=_ALL_ARGUMENTS)(lm_eval_verb)
app.add_typer(bench_verbs, name="bench")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"stochroute {__version__}")
        raise typer.Exit


@app.callback()
def _options(  # pyright: ignore[reportUnusedFunction]
    version: Annotated[
        bool,
        # eager: before the parser misses a verb
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None: ...


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code: 0 done, 1 a check failed, 2 bad input, 130 interrupted. A bug raises."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = _show_own_warning
            code = app(arguments, prog_name="stochroute", standalone_mode=False)
    except Interrupted as error:
        return _say(str(error), 130)
    except Failed as error:
        return _say(str(error), 1)
    except Exception as error:
        if came_from_ctrl_c(error):
            return _say("interrupted", 130)
        # what the option parser raises carries its own text and code, under whatever name the class has today
        parse_error: Any = getattr(error, "format_message", None)
        if parse_error is not None:
            text = parse_error()  # empty where the help has just been shown
            return _say(f"{one_line(text)}; see --help" if text else "", getattr(error, "exit_code", 2))
        if not is_for_the_user(error):
            raise
        return _say(one_line(error), 2)
    if code == 130:
        return _say("interrupted", 130)
    return code or 0


def _say(message: str, code: int) -> int:
    if message:
        typer.echo(f"stochroute: {message}", err=True)
    return code


def _show_own_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Warnings of this package are meant for the user; those of others are for developers."""
    if category.__module__.partition(".")[0] == "stochroute":
        typer.echo(f"stochroute: warning: {message}", err=True)
