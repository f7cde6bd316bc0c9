"""`stochroute lm-eval`: the lm-evaluation-harness's own command, which then knows the model "stochroute".

stochroute lm-eval run --model stochroute --model_args pretrained=NAME,strength=0.1,paths=8 --tasks hellaswag
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false
import sys

import typer

from stochroute.cli.errors import BadInput
from stochroute.errors import one_line


def lm_eval(context: typer.Context) -> None:
    """The command of the lm-evaluation-harness, with routed models as --model stochroute.

    Example: stochroute lm-eval run --model stochroute --model_args pretrained=NAME,paths=8 --tasks arc_easy
    """
    try:
        import stochroute.integrations.lm_eval  # pyright: ignore[reportUnusedImport]  # noqa: F401, I001
        from lm_eval.__main__ import cli_evaluate
    except ImportError as error:
        raise BadInput(f"lm-eval needs more packages ({one_line(error)}): pip install 'stochroute[lm-eval]'") from error
    before = sys.argv
    sys.argv = ["stochroute lm-eval", *context.args]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
