"""The reference has every setting, command, component, metric and file of gmsa; and the site needs no network."""

from __future__ import annotations

import gc
import inspect
import json
import re
import runpy
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.killed_runs import ended, forked

import gmsa
from gmsa import metrics, registry
from gmsa.__main__ import main
from gmsa.config.describe import describe_settings
from gmsa.config.packaged import packaged
from gmsa.system import cli

pytest.importorskip("furo", reason="needs the extra docs")
import furo
from sphinx.cmd.build import build_main
from sphinx.search.en import SearchEnglish
from sphinx.util.inventory import InventoryFile

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
QUICK = ("optim.epochs=1", "optim.min_steps=0", "model.channels=16", "model.heads=2", "self_training.k=1")
SEARCHED = ("optim.epochs=6", "optim.min_steps=0", "model.channels=64", "self_training.k=5")
"""Quick settings that lie in the ranges of the packaged search space."""
directives = runpy.run_path(str(DOCS / "extensions" / "gmsa_docs.py"))
COMMANDS = [*cli.COMMANDS, *(f"data {name}" for name in directives["subcommands"](directives["parser_of"]("data")))]
ENDS = [name for name in COMMANDS if name != "data"]
"""Commands that do something."""


class Page(HTMLParser):
    """The text of a page, and the addresses of all that a browser loads with it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.loaded: list[str] = []
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        loaded = [found.get("src"), found.get("srcset"), found.get("poster"), found.get("data")]
        if tag == "link" and not {"next", "prev", "index", "search"} & {*(found.get("rel") or "").split()}:
            loaded.append(found.get("href"))
        self.loaded += [address for address in loaded if address]
        self.loaded += addresses_in_css(found.get("style") or "")
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside[-1:] == [tag]:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside == ["style"]:
            self.loaded += addresses_in_css(data)
        elif not self._inside:
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return plain("".join(self.pieces))


def addresses_in_css(text: str) -> list[str]:
    """What a style sheet loads."""
    found = re.findall(r"""url\(\s*['"]?([^'")\s]+)|@import\s+['"]([^'"]+)""", text)
    return [address for pair in found for address in pair if address]


def plain(text: str) -> str:
    """Text in one line, with straight quotes and without marks of code."""
    straight = {"’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "–": "--", "`": ""}
    return " ".join(text.translate(str.maketrans(straight)).split())


def build(words: list[str]) -> None:
    """Builds the site, and ends this process.

    Without the tree of all pages beside each page, with words to search and quotes as they are, and without the
    collector of garbage: a third of the time.
    """
    gc.disable()
    furo._compute_navigation_tree = lambda context: ""
    SearchEnglish.stem = lambda language, word: word
    sys.exit(build_main(words))


of_site = pytest.mark.slow
"""Tests that read the site, which takes long to build: ``.ci/run`` runs them beside the plain ones."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, built once for all processes of the tests; a warning is an error."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if base.name.startswith("popen-") else base) / "site"
    with FileLock(f"{place}.lock"):
        place.mkdir(exist_ok=True)
        if not (place / "built").exists():
            # Without what copies the source of every module, which takes a fifth of the time.
            used = [e for e in runpy.run_path(str(DOCS / "conf.py"))["extensions"] if e != "sphinx.ext.viewcode"]
            words = [
                "-W",
                "--keep-going",
                "-q",
                "-b",
                "html",
                "-D",
                "smartquotes=0",
                "-D",
                f"extensions={','.join(used)}",
            ]
            words += ["-d", str(place / "doctrees"), str(DOCS), str(place / "html")]
            words += ["-w", str(place / "warnings.txt")]
            # In a process of its own: autodoc leaves signatures of its making on the functions that it documents.
            assert ended(forked(lambda: build(words))) == 0, (place / "warnings.txt").read_text()
            (place / "built").touch()
    return place / "html"


@pytest.fixture(scope="module")
def objects(site: Path) -> dict[str, dict[str, str]]:
    """What can be linked to: by kind, the page of each name."""
    found = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    return {kind: {name: item.uri.partition("#")[0] for name, item in items.items()} for kind, items in found.items()}


def text_of(site: Path, page: str) -> str:
    return Page((site / "reference" / page).read_text(encoding="utf-8")).text


@of_site
def test_every_setting_is_listed(site: Path, objects: dict[str, dict[str, str]]) -> None:
    settings = describe_settings()
    assert objects["std:confval"] == dict.fromkeys((s.key for s in settings), "reference/settings.html")
    html = (site / "reference" / "settings.html").read_text(encoding="utf-8")
    text = Page(html).text
    for setting in settings:
        assert f'id="{setting.key}"' in html, setting.key
        assert plain(setting.meaning) in text, setting.key
    rate = next(s for s in settings if s.key == "optim.lr")
    assert f"{rate.meaning} Default {rate.default}. A number: > 0." in text


@of_site
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_listed_with_every_option(
    site: Path, objects: dict[str, dict[str, str]], command: str
) -> None:
    parser, text = directives["parser_of"](command), text_of(site, "commands.html")
    assert f"gmsa {command}" in text
    if command == "data":
        return
    assert plain(parser.description) in text
    assert plain(parser.example) in text
    arguments = directives["arguments_of"](parser)
    assert arguments or command == "data models"
    for argument in arguments:
        for spelling in argument.option_strings or [argument.metavar or argument.dest]:
            assert f"{parser.prog.replace(' ', '-')}.{spelling}" in objects["std:cmdoption"], spelling
        assert plain(argument.help)[1:] in text, argument.dest


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_a_help_fits_80_columns_and_ends_with_an_example(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = directives["parser_of"](command)
    lines = parser.format_help().splitlines()
    assert [line for line in lines if len(line) > 80] == []
    end = lines[lines.index("example:") :]
    assert end[1] == f"  {parser.example}"
    takes_settings = command == "" or any(a.dest == "overrides" for a in parser._actions)
    assert end[2:4] == (["", "settings:"] if takes_settings else [])
    for argument in directives["arguments_of"](parser):
        assert argument.help, argument.dest


@of_site
def test_no_option_is_listed_that_is_none(objects: dict[str, dict[str, str]]) -> None:
    known = [
        f"gmsa-{command.replace(' ', '-')}.{spelling}"
        for command in ENDS
        for argument in directives["arguments_of"](directives["parser_of"](command))
        for spelling in argument.option_strings or [argument.metavar or argument.dest]
    ]
    assert sorted(objects["std:cmdoption"]) == sorted(known)


@of_site
def test_every_component_and_every_metric_is_listed(site: Path, objects: dict[str, dict[str, str]]) -> None:
    places = {registry.METRICS: "reference/metrics.html"}
    known = {
        f"{kind.upper()}.{name}": places.get(parts, "reference/components.html")
        for kind, parts in registry.REGISTRIES.items()
        for name in parts
        if parts.module_of(name).startswith("gmsa.")  # other tests register parts of their own
    }
    known |= {f"{scale}.{name}": "reference/metrics.html" for scale, names in metrics.COLUMNS.items() for name in names}
    found = {name: page for name, page in objects["std:component"].items() if name in known}
    assert found == known
    text = text_of(site, "components.html")
    for parts in registry.REGISTRIES.values():
        for name in parts:
            if parts is not registry.METRICS and parts.module_of(name).startswith("gmsa."):
                assert plain(parts.describe(name)).partition(":")[0] in text, name
    assert "dilated(stride: int, hops: int)" in text
    assert "RMSE, CCC" in text


@pytest.mark.parametrize("scale", metrics.COLUMNS)
def test_the_docstring_defines_the_metrics_in_the_order_of_the_columns(scale: str) -> None:
    assert tuple(directives["definitions"](scale)) == metrics.COLUMNS[scale]


@of_site
def test_the_public_names_are_in_the_python_reference(objects: dict[str, dict[str, str]]) -> None:
    documented = {name for kind, names in objects.items() if kind.startswith("py:") for name in names}
    for name in gmsa.__all__:
        assert {f"gmsa.{name}", f"gmsa.registry.{name}"} & documented or name == "__version__", name


@of_site
def test_no_page_shows_the_environment_of_who_built_it(site: Path) -> None:
    assert "environ: Mapping[str, str] = os.environ" in text_of(site, "python.html")
    for page in site.rglob("*.html"):
        assert "environ({" not in Page(page.read_text(encoding="utf-8")).text, page


@of_site
def test_every_packaged_file_is_listed(site: Path) -> None:
    text = text_of(site, "commands.html")
    for kind in ("configs", "spaces", "ablations"):
        for name in packaged(kind):  # type: ignore[arg-type]
            assert name in text, name


def test_every_environment_variable_that_gmsa_reads_is_listed() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "gmsa").rglob("*.py"))
    read = {*re.findall(r"""environ(?:\.get\(|\.setdefault\(|\[)"([A-Z_]+)\"""", source)}
    read |= {*re.findall(r'"([A-Z_]+)" not in os\.environ', source)}
    assert {"GMSA_DATA", "GMSA_STORAGE", "WORLD_SIZE"} <= read
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in sorted(read) if f"`{name}`" not in page] == []


def test_every_exit_code_is_listed() -> None:
    codes = {*re.findall(r"\bcode(?:, line)? = (\d+)", inspect.getsource(cli))}
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    assert {*re.findall(r"(?m)^\| (\d+) \|", page)} == codes
    assert len(codes) == 6


@of_site
def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages, sheets = sorted(site.rglob("*.html")), sorted(site.rglob("*.css"))
    assert len(pages) > 25
    assert sheets
    loaded = {(page, address) for page in pages for address in Page(page.read_text(encoding="utf-8")).loaded}
    loaded |= {(s, address) for s in sheets for address in addresses_in_css(s.read_text(encoding="utf-8"))}
    assert len(loaded) > 100
    elsewhere = re.compile(r"(?i)\s*(?:[a-z][a-z0-9+.-]*:)?//")
    assert [(str(page), address) for page, address in sorted(loaded) if elsewhere.match(address)] == []
    for page, address in loaded:
        if not address.startswith("data:"):
            assert (page.parent / re.split(r"[?#]", address)[0]).exists(), (page, address)


def test_what_a_page_loads_is_noticed() -> None:
    html = (
        '<link rel="stylesheet" href="https://a.example/x.css"><img src="//b.example/y.png">'
        "<style>@import 'https://c.example/z.css'; p { background: url(\"https://d.example/w.png\") }</style>"
        '<a href="https://e.example">click</a><script>let url = "not text"</script>'
    )
    page = Page(html)
    assert [address.partition("//")[2][0] for address in page.loaded] == ["a", "b", "c", "d"]
    assert page.text == "click"


# --- the examples of the helps, and what they write ------------------------------------------------------------------


@pytest.fixture
def place(write_mmsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with MOSI (here a small file) in its place, and a file of one's own."""
    place = tmp_path / "place"
    (place / "data" / "mosi").mkdir(parents=True)
    write_mmsa().rename(place / "data" / "mosi" / "aligned_50.pkl")
    write_mmsa(prefix="other-").rename(place / "clips.pkl")
    monkeypatch.chdir(place)
    monkeypatch.delenv("GMSA_DATA", raising=False)
    monkeypatch.delenv("GMSA_STORAGE", raising=False)
    return place


def run_example(command: str, **changed: str) -> None:
    """Runs the example of a command's help, made quick."""
    words = shlex.split(directives["parser_of"](command).example.replace("VIDEO$_$CLIP", "train0$_$0"))[1:]
    quick = {"train": QUICK, "ablate": QUICK, "tune": SEARCHED}.get(command, ())
    words += [part for setting in quick for part in ("--set", setting)]
    words += [part for option, value in changed.items() for part in (f"--{option.replace('_', '-')}", value)]
    main(words)


def named_on(page: str) -> set[str]:
    """What a page of the reference has as code."""
    return {*re.findall(r"`([^`\n]+)`", (DOCS / "reference" / page).read_text(encoding="utf-8"))}


def patterns(names: set[str]) -> re.Pattern[str]:
    """The names of files in which capitals stand for others, as ``STAGE.safetensors``."""
    parts = [re.sub(r"[A-Z]{2}[A-Z0-9]*|\bN\b|\\\*", ".+", re.escape(name)) for name in names]
    return re.compile("|".join(f"(?:{part})" for part in parts))


def test_the_examples_run_and_the_page_names_all_that_they_write(place: Path, capsys) -> None:
    run_example("train", seeds="1", set="data.label_ratio=0.5")
    run_example("evaluate", mask_seeds="0")
    for command in ENDS[2:]:
        # The last two: it serves until it is ended; it needs videos.
        if command not in ("ablate", "tune", "export", "app", "data extract"):
            run_example(command)
    # A program takes seconds to trace: test_pages.py does it, on a page that has this example.
    assert f"\n{directives['parser_of']('export').example}\n" in (DOCS / "guides" / "serving.md").read_text()
    for made in ("out.csv", "graph.png", "clips/manifest.json", "report/check.md"):
        assert (place / made).exists(), made

    names, run = named_on("run_folder.md"), place / "runs" / "mosi_graph"
    known = patterns(names | {f"figures/{name}.EXTENSION" for name in names if re.fullmatch(r"[a-zA-Z_]+", name)})
    files = [file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()]
    files = [re.sub(r"^seed-1/", "", name) for name in files]
    assert len(files) > 15
    assert not known.fullmatch("other.txt")
    assert not known.fullmatch("figures/other.txt")
    assert [name for name in files if not known.fullmatch(name)] == []
    assert [f.name for f in (place / "clips").iterdir() if not known.fullmatch(f.name)] == []

    for table in ("seed-1/predictions.csv", "seed-1/pseudo_labels.csv", "robustness.csv"):
        header = (run / table).read_text(encoding="utf-8").splitlines()[0].split(",")
        assert [
            c for c in header if c not in names and c not in metrics.COLUMNS["mosi"] and c not in "p1p2p3p4p5"
        ] == []
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert [*summary["stages"]] == ["supervised", "self_training_1"]
    assert [key for key in (*summary, *summary["missing"]["train"]) if key not in names] == []
    for records in (run / "environment.json", run / "seed-1" / "history.jsonl"):
        first = json.loads(records.read_text(encoding="utf-8").split("\n{")[0])
        assert [key for key in first if key not in names] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ablate", "tune"])
def test_the_examples_with_processes_of_their_own_run(place: Path, command: str) -> None:
    run_example(command, seeds="1", **({"trials": "1"} if command == "tune" else {}))
    names = named_on("run_folder.md")
    [folder] = (place / "runs").iterdir()
    known = patterns({part for name in names for part in (name, name.partition("/")[0])})
    assert [f.name for f in folder.iterdir() if not known.fullmatch(f.name)] == []
