"""Writes a run as one program that needs no gmsa: ``python -m gmsa.export --run runs/mosi_graph --out model.pt2``."""

from __future__ import annotations

from collections.abc import Sequence

from gmsa.system import cli
from gmsa.system.console import console


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(
        prog="python -m gmsa.export",
        description="Write the models of a run as one program of torch.export, for batches of any size, and check it "
        "against the run's own predictions.",
    )
    parser.add_argument("--run", required=True, metavar="DIR", help="run folder of a finished training, or saved model")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="program to write: FILE.pt2 for torch.export, FILE.onnx for ONNX (needs onnx, onnxscript and onnxruntime)",
    )
    parser.add_argument(
        "--seeds", type=cli.seed_list, metavar="N,N,...", help="seeds whose predictions are averaged (default: all)"
    )
    cli.add_plugin_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options = parser().parse_args(arguments)

    from gmsa.runs.folder import Run  # after parsing: --help need not wait for torch

    cli.load_plugins_of(options)
    found = Run(options.run).export(options.out, options.seeds)
    facts = found.description
    seeds = ", ".join(map(str, facts["seeds"]))
    console().print(
        f"Wrote {found.path}: {facts['model']}, the mean of seeds {seeds}"
        if len(facts["seeds"]) > 1
        else f"Wrote {found.path}: {facts['model']}, seed {seeds}"
    )
    sizes = facts["checked"]["utterances"]
    console().print(
        f"On batches of {sizes[0]} to {sizes[-1]} utterances it differs from the run by at most "
        f"{found.largest_difference:.1e}"
    )


if __name__ == "__main__":
    cli.run(main, "export")
