"""Registries and plug-ins: names, clashes, modules of the user's, installed packages, and what cannot be imported."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gmsa import registry
from gmsa.config import Config, from_dict, load_config
from gmsa.config.components import parse_component
from gmsa.errors import ConfigError
from gmsa.registry import EDGE_BUILDERS, MODELS, REGISTRIES, Registry, load_plugins, loaded_plugins


@pytest.fixture(autouse=True)
def _as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own that modules can be in, and afterwards no trace of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    for found in REGISTRIES.values():
        monkeypatch.setattr(found, "_parts", dict(found._parts))
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.setattr(registry, "_failed", {})
    monkeypatch.setattr(registry, "_entry_points_asked", False)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("plug_"):
            del sys.modules[name]


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def builder(name: str, body: str = "") -> str:
    return (
        f"from gmsa.registry import EDGE_BUILDERS\n{body}\n\n@EDGE_BUILDERS.register('{name}')\n"
        "def build(source_length: int, target_length: int, reach: int = 1): ...\n"
    )


def install(folder: str, package: str, *points: str) -> None:
    """Puts a distribution where Python finds installed ones."""
    write(f"{folder}/{package}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    write(f"{folder}/{package}-1.0.dist-info/entry_points.txt", "\n".join(["[gmsa.plugins]", *points]))
    sys.path.insert(0, str(Path(folder).resolve()))
    importlib.invalidate_caches()


# --- one registry ----------------------------------------------------------------------------------------------------


def shapes() -> Registry:
    return Registry("shape", {"path": "pathlib:Path", "later": "no_such_module_of_mine:X"}, passed=("size",))


def test_built_in_parts_are_imported_when_they_are_used() -> None:
    found = shapes()
    assert list(found) == ["path", "later"]
    assert "path" in found
    assert len(found) == 2
    assert found["path"] is Path
    assert found.module_of("later") == "no_such_module_of_mine"


def test_a_part_that_needs_a_package() -> None:
    with pytest.raises(
        ConfigError, match=r"^the shape 'later' needs the package 'no_such_module_of_mine'; install it$"
    ):
        shapes()["later"]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        shapes().check("pahth", "my.key")
    assert str(caught.value) == "'my.key' must be one of path, later (got 'pahth') (did you mean 'path'?)"
    with pytest.raises(ConfigError, match="'shape' must be one of path, later"):
        shapes()["x"]


def test_registering() -> None:
    found = shapes()

    @found.register("round")
    def circle(size: int, radius: float = 1.0, *more: int, **others: int) -> None:
        """A circle, e.g. of a wheel. It is round.

        More of it.
        """

    @found.register()
    class Square:
        pass

    found.register("half", functools.partial(circle, radius=0.5))
    assert found["round"] is circle
    assert found["Square"] is Square
    assert list(found.parameters("round")) == ["radius"]
    assert found.describe("round") == "A circle, e.g. of a wheel."
    assert found.describe("Square") == ""


class Circle:
    def __init__(self, size: int, radius: float, *more: int, mark: str = "") -> None: ...


class Tagged:
    def __init__(self, tag: str = "", **more: Any) -> None:
        super().__init__(**more)


class Ring(Tagged, Circle):
    def __init__(self, *given: Any, mark: int = 0, **more: Any) -> None: ...


class Open(Tagged):
    pass


def test_what_a_class_passes_on_is_among_its_parameters() -> None:
    found = shapes()
    found.register("ring", Ring)
    assert list(found.parameters("ring")) == ["mark", "tag", "radius"]
    assert found.parameters("ring")["mark"].annotation is int
    assert parse_component("ring(radius=2, mark=3)", found, "shape") == ("ring", {"radius": 2.0, "mark": 3})
    found.check_given("ring", (), "shape")  # it may give the radius itself
    takes_any = [any(p.kind is p.VAR_KEYWORD for p in registry.parameters_of(x).values()) for x in (Open, Ring)]
    assert takes_any == [True, False]
    with pytest.raises(ConfigError, match=r"'shape': 'ring' has no parameter 'raduis' \(it has: mark, tag, radius\)"):
        parse_component("ring(raduis=2)", found, "shape")


def test_registering_again_changes_nothing() -> None:
    found = shapes()
    for _ in range(2):

        @found.register("round")
        def circle() -> None: ...

    found.register("path", Path)
    assert list(found) == ["path", "later", "round"]


def test_a_name_that_another_part_has() -> None:
    found = shapes()
    with pytest.raises(ConfigError, match=r"^the shape 'path' is pathlib:Path already; choose another name$"):
        found.register("path", Registry)
    assert found["path"] is Path


@pytest.mark.parametrize("name", ["a b", "a(b)", "a,b", "a=b", "a:b", "[a]", None])
def test_a_name_that_no_setting_could_hold(name: str | None) -> None:
    with pytest.raises(ConfigError, match="needs a name without spaces, commas and brackets"):
        shapes().register(name, functools.partial(int))


def test_an_annotation_for_type_checkers_alone() -> None:
    found = shapes()

    def circle(size: int, mark: Missing = None) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    found.register("round", circle)
    assert list(found.parameters("round")) == ["mark"]


# --- modules of the user's -------------------------------------------------------------------------------------------


def test_a_module_beside_the_config() -> None:
    write("place/plug_beside.py", builder("beside"))
    write("place/own.yaml", "plugins: [plug_beside]")
    assert load_config("place/own.yaml", environ={}).plugins == ("plug_beside",)
    assert loaded_plugins() == ("plug_beside",)
    assert parse_component("beside(reach=3)", EDGE_BUILDERS, "k") == ("beside", {"reach": 3})
    assert EDGE_BUILDERS.module_of("beside") == "plug_beside"
    assert sys.path[-1] == str(Path("place").resolve())


def test_a_folder_hides_no_module() -> None:
    write("json.py", "raise RuntimeError('hidden')")
    load_plugins(["json.tool"], Path())
    assert Path(sys.modules["json"].__file__ or "").parent != Path.cwd()


def test_a_module_is_imported_once() -> None:
    write("plug_once.py", builder("once", "print('imported')"))
    load_plugins(["plug_once"], Path())
    module = sys.modules["plug_once"]
    Path("plug_once.py").unlink()
    load_plugins(["plug_once"])
    assert sys.modules["plug_once"] is module
    write("plug_once.py", builder("once"))
    importlib.reload(module)
    assert EDGE_BUILDERS["once"] is module.build


def test_an_imported_name_works_in_a_config() -> None:
    write("plug_model.py", "from gmsa.registry import MODELS\n@MODELS.register('mine')\nclass Mine: ...\n")
    write("own.yaml", "plugins: [plug_model]\nmodel: {name: mine}")
    assert load_config("own.yaml", environ={}).model.name == "mine"
    write("other.yaml", "model: {name: mine2}")
    with pytest.raises(ConfigError, match=r"other\.yaml: 'model\.name' must be one of .*, mine \(got 'mine2'\)"):
        load_config("other.yaml", environ={})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "plug-in 'plug_bad' is not there; install it, or put it on PYTHONPATH, beside the config"),
        ("import plug_no_such", "plug-in 'plug_bad' needs the module 'plug_no_such'; install it"),
        ("1 / 0", "plug-in 'plug_bad' failed while it was imported (ZeroDivisionError: division by zero); repair it"),
        ("def", "plug-in 'plug_bad' failed while it was imported (SyntaxError: "),
        ("raise SystemExit(3)", "plug-in 'plug_bad' failed while it was imported (SystemExit: 3)"),
        ("from os import nothing", "plug-in 'plug_bad' failed while it was imported (ImportError: cannot import name"),
        (builder("window"), "plug-in 'plug_bad': the edge builder 'window' is gmsa.graph.edges:window already; choose"),
    ],
)
def test_a_module_that_cannot_be_imported(text: str | None, said: str) -> None:
    if text is not None:
        write("plug_bad.py", text)
    write("own.yaml", "plugins: [plug_bad]")
    with pytest.raises(ConfigError) as caught:
        load_config("own.yaml", environ={})
    assert str(caught.value).startswith(f"own.yaml: {said}")
    assert "\n" not in str(caught.value)
    assert loaded_plugins() == ()


def test_a_path_is_no_module() -> None:
    write("plug_path.py", "")
    with pytest.raises(ConfigError, match=r"'plug_path\.py' is not there; give the module's name, without \.py"):
        load_plugins(["plug_path.py"], Path())


# --- installed packages ----------------------------------------------------------------------------------------------


def test_an_installed_package_is_found_when_its_name_is_used() -> None:
    install("site", "plug_installed", "mine = plug_installed.parts")
    write("site/plug_installed/__init__.py", "")
    write("site/plug_installed/parts.py", builder("installed"))
    assert "window" in EDGE_BUILDERS
    assert "plug_installed.parts" not in sys.modules  # nothing was unknown
    assert "installed" in EDGE_BUILDERS
    assert loaded_plugins() == ("plug_installed.parts",)
    assert parse_component("installed(reach=2)", EDGE_BUILDERS, "k") == ("installed", {"reach": 2})


def test_iterating_and_unknown_names_count_installed_packages() -> None:
    install("site", "plug_listed", "mine = plug_listed")
    write("site/plug_listed.py", "from gmsa.registry import MODELS\n@MODELS.register('listed')\nclass Listed: ...\n")
    with pytest.raises(ConfigError, match=r"one of semi_iin, .*, listed \(got 'listd'\) \(did you mean 'listed'\?\)"):
        from_dict({"model": {"name": "listd"}})
    assert [*MODELS][-1] == "listed"


def test_a_broken_installed_package_stops_nobody_who_does_not_need_it() -> None:
    install("site", "plug_broken", "one = plug_broken")
    write("site/plug_broken.py", "1 / 0")
    install("site2", "plug_whole", "two = plug_whole")
    write("site2/plug_whole.py", builder("whole"))
    assert "whole" in EDGE_BUILDERS
    assert from_dict({}) == Config()
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            EDGE_BUILDERS.check("broken", "graph.intra")
        assert "whole (got 'broken')" in str(caught.value)
        assert str(caught.value).endswith(
            "; plug-in 'one of the installed package plug_broken' failed while it was imported (ZeroDivisionError: "
            "division by zero); repair it"
        )
    with pytest.raises(ConfigError, match="plug-in 'plug_broken' failed while it was imported"):
        load_plugins(["plug_broken"])  # here it is asked for by name


def test_a_plug_in_may_ask_the_registry_while_it_is_imported() -> None:
    install("site", "plug_asking", "mine = plug_asking")
    write("site/plug_asking.py", builder("asking", "assert 'asking' not in EDGE_BUILDERS"))
    assert "asking" in EDGE_BUILDERS


def test_another_thread_waits_until_plug_ins_are_imported() -> None:
    install("site", "plug_slow", "mine = plug_slow")
    write("site/plug_slow.py", builder("slow", "import time\ntime.sleep(0.3)"))
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append("slow" in EDGE_BUILDERS)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def test_another_process_finds_it(tmp_path: Path) -> None:
    install("site", "plug_worker", "mine = plug_worker")
    write("site/plug_worker.py", builder("worker"))
    code = "from gmsa.registry import EDGE_BUILDERS as e; import sys; exit('worker' not in e or 'torch' in sys.modules)"
    where = {"PYTHONPATH": f"{Path(registry.__file__).parents[1]}:{tmp_path / 'site'}"}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=where).returncode == 0


@pytest.mark.parametrize("module", ["", "..", ".mine", "a..b", "../mine", "mine.", "a\\b"])
def test_what_is_no_name_of_a_module_is_not_imported(module: str) -> None:
    with pytest.raises(ConfigError, match=r"plug-in '.*' is no name of a module, such as mine or mine.parts"):
        load_plugins([module])


def test_a_script_is_its_own_plug_in_but_hides_no_part_of_another_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the same name elsewhere is another module, and so is one with dots in its name."""

    def register_from(script: str, name: str, qualname: str) -> None:
        main = ModuleType("__main__")
        main.__file__, main.__spec__ = str(Path(script).resolve()), None
        monkeypatch.setitem(sys.modules, "__main__", main)
        part = type(qualname, (), {"__module__": "__main__"})
        EDGE_BUILDERS.register(name, part)

    write("plug_twin.py", builder("twin"))
    sys.path.insert(0, str(Path.cwd()))
    load_plugins(["plug_twin"])
    register_from("plug_twin.py", "twin", "build")
    importlib.reload(sys.modules["plug_twin"])
    with pytest.raises(ConfigError, match=r"the edge builder 'twin' is plug_twin:build already"):
        register_from("elsewhere/plug_twin.py", "twin", "build")
    with pytest.raises(ConfigError, match=r"the edge builder 'window' is gmsa.graph.edges:window already"):
        register_from("gmsa.graph.edges.py", "window", "window")
