"""Answers videos in the browser: ``python -m gmsa.app --run DIR``."""

from __future__ import annotations

from collections.abc import Sequence

from gmsa.app.options import Options
from gmsa.app.server import serve_page
from gmsa.system import cli


def parser() -> cli.Parser:
    """Builds the parser of the command's arguments."""
    parser = cli.Parser(
        prog="python -m gmsa.app",
        description="Open or record videos in the browser, and see what runs answer, when, and why. The page is for "
        "this machine alone; nothing leaves it. Ctrl-C ends it.",
    )
    parser.add_argument(
        "--run",
        action="append",
        required=True,
        metavar="DIR",
        dest="runs",
        help="run folder of a training on extracted videos (may repeat: runs are compared side by side)",
    )
    parser.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--limit", type=float, default=200.0, metavar="MIB", help="MiB of a video (default: 200)")
    parser.add_argument("--no-browser", action="store_true", help="print the link, and do not open it")
    cli.add_plugin_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    command = parser()
    options = command.parse_args(arguments)
    if not 0 < options.limit < 2**20:
        command.error(f"--limit must be above 0 and below a million MiB (got {options.limit:g})")
    if options.port < 0:
        command.error(f"--port must be 0 or above (got {options.port})")
    cli.load_plugins_of(options)
    # Before a video is taken; the worker opens them again.
    from gmsa.registry import loaded_plugins
    from gmsa.runs.folder import Run
    from gmsa.runs.video.clips import settings_of

    runs = [Run(run) for run in options.runs]
    for run in runs:
        settings_of(run)  # one whose data do not say how they were extracted answers no video
    serve_page(
        Options(tuple(run.folder for run in runs), loaded_plugins(), limit=int(options.limit * 2**20)),
        options.port,
        not options.no_browser,
    )


if __name__ == "__main__":
    cli.run(main, "app")
