"""What surrounds the package: how to contribute, the changelog, the citation, the templates and the image are true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import gmsa
from gmsa.registry import REGISTRIES

ROOT = Path(__file__).parents[1]
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link.partition("#")[0]).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:benchmarks|configs|docs|gmsa|tests|tools)/[\w./]*\w", text)) | set(
        re.findall(r"`([A-Z]\w+\.(?:md|cff)|Dockerfile|\.ci/\w+)`", text)
    )
    assert named or page == "SECURITY.md"
    for name in named:
        assert (ROOT / name).exists(), name


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"(?m)^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    named = set(re.findall(r"(?:`|^)make (\w+)", CONTRIBUTING, flags=re.MULTILINE))
    assert {"test", "slow", "lint", "docs", "pythons"} <= named <= targets


def test_the_floors_are_those_that_are_checked() -> None:
    from test_layout import FLOORS

    rows = re.findall(r"(?m)^\| (\d) \| (.*) \|$", CONTRIBUTING)
    assert {int(floor): set(re.findall(r"`(\w+)`", rooms)) for floor, rooms in rows} == FLOORS


def test_the_names_in_the_steps_exist() -> None:
    """Names of code that a step tells to change or to call are in the file that it names before."""
    for file, names in {
        "gmsa/registry.py": ("LAYERS", "EDGE_BUILDERS", "MODELS", "METRICS", "IMPORTERS", "PROTOCOLS"),
        "gmsa/config/groups/graph.py": ("GraphConfig", "SHARED_PARAMETERS"),
        "tests/graph/test_edges.py": ("SETTINGS", "by_loop"),
        "tests/runs/test_models_and_protocols.py": ("FEW",),
        "tests/nn/test_layers.py": ("test_all_routes_equal_the_formula_in_value_and_gradient",),
        "gmsa/data/importers/__init__.py": ("_READS_FOLDERS",),
        "gmsa/config/schema.py": ("__post_init__",),
    }.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        assert file in CONTRIBUTING
        for name in names:
            assert f"`{name}`" in CONTRIBUTING, name
            assert re.search(rf"\b{name}\b", text), f"{file} has no {name}"


def test_each_kind_of_part_has_its_steps() -> None:
    told = re.findall(r"(?m)^### An? (.*)$", CONTRIBUTING)
    kinds = {registry.kind for registry in REGISTRIES.values()}
    assert {*told} <= kinds
    assert kinds - {*told} == {"encoder", "callback"}  # one of each kind is built in, and others are users' own


def test_the_newest_version_of_the_changelog_is_the_package() -> None:
    versions = re.findall(r"(?m)^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert versions[0] == "Unreleased"
    assert versions[1] == gmsa.__version__
    sections = re.findall(r"(?m)^### (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert {*sections} <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


# --- the citation ----------------------------------------------------------------------------------------------------

TOP = {
    *("abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords"),
    *("license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact"),
    *("repository-code", "title", "type", "url", "version"),
}
"""Keys of the schema of CFF 1.2.0; of a reference, those that are used here."""
OF_REFERENCE = {
    *("type", "title", "authors", "year", "conference", "identifiers", "url", "notes"),
    *("journal", "volume", "start", "doi"),
}


def test_the_citation_fits_the_schema() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys() <= TOP
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == gmsa.__version__
    assert citation["license"] == "MIT"
    assert citation["authors"] == [{"name": "The gmsa authors"}]
    assert len(citation["references"]) == 2
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys() <= OF_REFERENCE
        assert all({*author} == {"family-names", "given-names"} for author in reference["authors"])
        assert isinstance(reference["year"], int)
        for key in ("title", "notes", "type"):
            assert isinstance(reference[key], str)
        for identifier in reference.get("identifiers", ()):
            assert {"type", "value"} <= identifier.keys() <= {"type", "value", "description"}
            assert identifier["type"] in {"doi", "url", "swh", "other"}
        assert re.fullmatch(r"10\.\d{4,9}/\S+", reference.get("doi", "10.1000/x"))


# --- templates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [p for p in TEMPLATES if p.stem != "config"], ids=lambda p: p.stem)
def test_issue_templates_are_forms(path: Path) -> None:
    form: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys() <= {"name", "description", "body", "labels", "title"}
    asked = [element for element in form["body"] if element["type"] != "markdown"]
    assert asked
    assert len({element["id"] for element in asked}) == len(asked)
    for element in form["body"]:
        attributes = element["attributes"]
        assert element.keys() <= {"type", "id", "attributes", "validations"}
        if element["type"] == "markdown":
            assert attributes.keys() == {"value"}
            continue
        assert element["type"] in {"input", "textarea", "dropdown", "checkboxes"}
        assert re.fullmatch(r"[\w-]+", element["id"])
        assert attributes["label"]
        assert element.get("validations", {}).keys() <= {"required"}
        if element["type"] == "dropdown":
            assert len(attributes["options"]) == len(set(attributes["options"])) > 1
            assert all(isinstance(option, str) and option.lower() != "none" for option in attributes["options"])
        if element["type"] == "checkboxes":
            assert all(isinstance(option["label"], str) for option in attributes["options"])


def test_the_templates() -> None:
    assert {path.stem for path in TEMPLATES} == {"bug_report", "feature_request", "new_model_or_layer", "config"}
    config = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml").read_text(encoding="utf-8"))
    assert config == {"blank_issues_enabled": True}
    request = (ROOT / ".github" / "pull_request_template.md").read_text(encoding="utf-8")
    assert {"make lint", "make docs", "make test"} <= set(re.findall(r"`(make \w+)`", request))


# --- the image -------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its arguments."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def test_the_image_copies_what_is_there_and_nothing_is_left_out_of_its_context() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {source for name, words in instructions() if name == "COPY" for source in words.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)
    building = {"pyproject.toml", "setup.py", "README.md", "LICENSE", "gmsa", "configs"}
    assert building <= copied, "what pip needs to build gmsa"


def test_the_image_runs_gmsa_as_nobody_special() -> None:
    found = instructions()
    assert {name for name, _ in found} <= {"FROM", "ARG", "ENV", "COPY", "RUN", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert found[0] == ("FROM", "python:3.12-slim")
    last = dict(found)
    assert last["USER"] == "gmsa"
    assert last["ENTRYPOINT"] == '["gmsa"]'
    assert any(name == "RUN" and "useradd" in words and "gmsa" in words for name, words in found)
    assert 'Python :: 3.12"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_installation_of_the_image_has_known_options_and_the_pins() -> None:
    pytest.importorskip("pip")
    from pip._internal.commands import create_command

    parser = create_command("install", isolated=True).parser
    commands = [
        shlex.split(command)
        for name, words in instructions()
        if name == "RUN"
        for command in words.split("&&")
        if command.strip().startswith("pip install")
    ]
    assert len(commands) == 2
    for command in commands:
        options, wanted = parser.parse_args(command[2:])  # ends the test where an option is unknown
        assert options.constraints[-1:] == ["/build/constraints.txt"]
        assert len(wanted) == 1
