"""The pages of the documentation: their blocks, and a folder in which these run quickly."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from gmsa import __main__ as command
from gmsa.ablation.variants import read_variants
from gmsa.config import load_config, to_dict
from gmsa.config.packaged import packaged
from gmsa.errors import GmsaError
from gmsa.media.settings import read_extraction
from gmsa.tuning import read_space

ROOT = Path(__file__).parents[2]
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
        if (ROOT / name).exists()
    ),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]
QUICK = {
    "optim.epochs": 1,
    "optim.min_steps": 0,
    "model.channels": 16,
    "model.heads": 2,
    "self_training.k": 1,
    "distillation.teachers": 2,
}
SEARCHED = QUICK | {"optim.epochs": 6, "model.channels": 64, "model.heads": 8, "self_training.k": 5}
"""Quick settings that lie in the ranges of the packaged search spaces."""
NOT_RUN = re.compile(
    r"(make|pip|python -m (pip|venv)|git|cd|source|export|torchrun|docker|sbatch|xdg-open)\b"
    r"|(optuna-dashboard|tensorboard|mlflow|wandb|gmsa app)\b"
    r"|gmsa (data extract|train .*--data clips|predict .*--video)\b"
    r"|python (tools|benchmarks|docs/examples)/\w+\.py"
    r"|#|\$?\w+=|for |do |done"
)
"""Beginnings of lines in a block of commands that are not run: they install, start a server, need videos, or take
minutes."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    """Line of its fence, from 1."""

    @property
    def file(self) -> str | None:
        """The file that its first line names in a comment, if any."""
        found = re.match(r"# ([\w/-]+\.(?:py|yaml))\n", self.text)
        return found[1] if found else None


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, but for the directives of MyST."""
    fence, language, start, lines = "", "", 0, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        found = re.match(r" *(`{3,}|~{3,})(.*)$", line)
        if not fence and found:
            fence, language, start, lines = found[1], found[2].strip(), number, []
        elif fence and line.strip() == fence:
            if not language.startswith("{"):
                yield Block(language, "".join(f"{one}\n" for one in lines), start)
            fence = ""
        elif fence:
            lines.append(line)
    assert not fence, f"{page}:{start}: a block that does not end"


def prose(page: Path) -> str:
    """The text of a page without its blocks."""
    return re.sub(r"(?ms)^ *(`{3,}|~{3,}).*?^ *\1$", "", page.read_text(encoding="utf-8"))


def commands(block: Block) -> list[str]:
    """The commands of a block, one per entry; continued lines are joined."""
    lines = [line.strip().removeprefix("$ ") for line in block.text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


def quick_configs(folder: Path, settings: dict[str, Any]) -> None:
    """Puts quick versions of the packaged configs into a folder, by name and as ``configs/NAME.yaml``.

    Both are found before the packaged ones, in commands, in Python and as a ``base``.
    """
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name, text in quick_texts(tuple(settings.items())).items():
        for path in (folder / name, folder / "configs" / f"{name}.yaml"):
            path.write_text(text)


@cache
def quick_texts(settings: tuple[tuple[str, Any], ...]) -> dict[str, str]:
    """The packaged configs with other settings, by name."""
    found = {}
    for name, file in packaged("configs").items():
        own = dict(settings)
        if load_config(file).model.text_encoder is not None:
            own["model.text_encoder"] = "text_encoder"  # in the folder, where commands run
        if load_config(file).pretrain.epochs:
            own["pretrain.epochs"] = 1
        found[name] = yaml.safe_dump(to_dict(load_config(file, [f"{key}={value}" for key, value in own.items()])))
    return found


def run_command(line: str) -> str:
    """Runs a command of gmsa in this process, with one seed and one trial; returns the name of the subcommand."""
    words = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "1"), comments=True)
    words = ["train0$_$0" if word == "VIDEO$_$CLIP" else word for word in words]
    if words[:2] == ["python", "-m"]:
        module = words[2]
        words = ["gmsa", *words[3:]] if module == "gmsa" else [module, *words[3:]]
    program, *arguments = words
    name = arguments[0] if program == "gmsa" else program.removeprefix("gmsa.")

    def put(option: str, value: str) -> None:
        if option in arguments:
            arguments[arguments.index(option) + 1] = value

    put("--seeds", "1111")
    put("--trial-seeds", "1111")
    if name == "tune":
        put("--trials", "1")
        for key, value in SEARCHED.items():
            arguments += ["--set", f"{key}={value}"]
        arguments += [] if "--seeds" in arguments else ["--seeds", "1111"]
    if "--storage" in arguments:  # a server that is not there
        place = arguments.index("--storage")
        del arguments[place : place + 2]
    if program == "gmsa":
        command.main(arguments)
    else:
        importlib.import_module(program).main(arguments)
    return name


def quick_python(code: str) -> str:
    """A block of Python with one trial, and with at most two seeds."""
    code = re.sub(r"trials=\d+", "trials=1", code)
    return re.sub(r"seeds=\[([^\]]*)\]", lambda m: f"seeds=[{', '.join(m[1].split(', ')[:1])}]", code)


def check_yaml(file: Path) -> None:
    """Loads a YAML file of a page as a config, a search space, a list of settings, or settings of an extraction.

    Raises:
        AssertionError: it is none of them.
    """
    config = load_config("mosi_graph")
    reasons = []
    for load in (
        load_config,
        lambda f: read_space(f, config),
        lambda f: read_variants(config, [], [], f),
        read_extraction,
    ):
        try:
            load(file)
            return
        except GmsaError as error:
            reasons.append(str(error))
    raise AssertionError("\n".join(reasons))
