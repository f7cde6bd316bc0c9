"""Executes the notebooks, offline, each in a fresh kernel.

python notebooks/run.py            # and writes their outputs into them: after a change, before a commit
python notebooks/run.py --check    # only sees whether they run, as CI does; a few minutes on one core
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FOLDER = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("names", nargs="*", help="some of them only, by the beginnings of their names")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    for file in sorted(FOLDER.glob("*.ipynb")):
        if options.names and not file.name.startswith(tuple(options.names)):
            continue
        began = time.perf_counter()
        notebook = nbformat.read(file, as_version=4)
        resources = {"metadata": {"path": str(FOLDER)}}
        try:
            NotebookClient(notebook, timeout=600, startup_timeout=180, resources=resources).execute()
        except CellExecutionError as error:
            sys.exit(f"{file.name}: {error}")
        print(f"{file.name}: {time.perf_counter() - began:.0f} s", flush=True)
        if not options.check:
            file.write_text(nbformat.writes(plain(notebook), ensure_ascii=False), encoding="utf-8")


def plain(notebook: Any) -> Any:
    """Without what differs from one machine or run to the next: times, versions, and what libraries warn about."""
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = joined([output for output in cell.outputs if output.get("name") != "stderr"])
    return notebook


def joined(outputs: list[Any]) -> list[Any]:
    """Printed text in one piece, wherever the kernel happened to flush it."""
    pieces: list[Any] = []
    for output in outputs:
        if pieces and output.output_type == pieces[-1].output_type == "stream":
            pieces[-1].text += output.text
        else:
            pieces.append(output)
    return pieces


if __name__ == "__main__":
    main()
