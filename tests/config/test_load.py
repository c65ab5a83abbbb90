"""Settings: strict keys, types and ranges, each error with its key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from gmsa.config import Config, from_dict, load_config, to_dict
from gmsa.config.override import override
from gmsa.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_loads_and_only_overrides_defaults(path: Path) -> None:
    import yaml

    config = load_config(path, environ={})
    groups = yaml.safe_load(path.read_text())
    base = groups.pop("base", None)
    defaults = to_dict(Config() if base is None else load_config(path.with_name(f"{base}.yaml"), environ={}))
    for group, settings in groups.items():
        for key, value in settings.items():
            assert defaults[group][key] != value, f"{group}.{key} is the default already"
            resolved = to_dict(config)[group][key]
            if key == "missing" and isinstance(value, str):
                assert [resolved[split] for split in ("train", "valid", "test")] == [value] * 3
            else:
                assert resolved == value or isinstance(value, dict)


def test_configs_hold_no_absolute_path() -> None:
    for path in CONFIGS:
        assert not Path(load_config(path, environ={}).data.path).is_absolute()


def test_round_trip() -> None:
    assert from_dict(to_dict(Config())) == Config()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optim": {"lrr": 1}}, "unknown key 'optim.lrr' (did you mean 'lr'?)"),
        ({"optimm": {}}, "unknown key 'optimm' (did you mean 'optim'?)"),
        (
            {"model": {"modality_dropout": {"txt": 0.1}}},
            "unknown key 'model.modality_dropout.txt' (did you mean 'text'?)",
        ),
        ({"model": {"fusion": "gat"}}, "'model.fusion' must be one of gate, add, dot, concat (got 'gat')"),
        ({"optim": {"lr": -1}}, "'optim.lr' must be greater than 0 (got -1.0)"),
        ({"optim": {"lr": "fast"}}, "'optim.lr' must be a number (got 'fast')"),
        ({"optim": {"lr": float("nan")}}, "'optim.lr' must be a number (got nan)"),
        ({"optim": {"epochs": 2.5}}, "'optim.epochs' must be a whole number (got 2.5)"),
        ({"optim": {"epochs": True}}, "'optim.epochs' must be a whole number (got True)"),
        ({"model": {"shared_layers": 1}}, "'model.shared_layers' must be true or false (got 1)"),
        ({"data": {"path": 3}}, "'data.path' must be text (got 3)"),
        ({"data": {"label_ratio": 0}}, "'data.label_ratio' must be greater than 0 (got 0.0)"),
        ({"data": {"label_ratio": 1.5}}, "'data.label_ratio' must be at most 1 (got 1.5)"),
        ({"self_training": {"k": -1}}, "'self_training.k' must be at least 0 (got -1)"),
        ({"self_training": {"k": "most"}}, "'self_training.k' must be a whole number or 'all' (got 'most')"),
        ({"self_training": {"threshold": 1}}, "'self_training.threshold' must be less than 1 (got 1.0)"),
        ({"model": {"heads": 7}}, "'model.channels' must be divisible by 'model.heads' (got 128 and 7)"),
        ({"model": {"text_convs": [[3]]}}, "'model.encoders.text' needs 2 values in each entry (got [3])"),
        ({"model": {"text_convs": []}}, "'model.encoders.text' must name at least one [kernel, stride] pair"),
        (
            {"model": {"text_convs": [[2, 3]]}},
            "'model.encoders.text' needs 1 <= stride <= kernel (got kernel 2, stride 3)",
        ),
        ({"data": {"modalities": "text"}}, "'data.modalities' must be a list"),
        ({"data": {"modalities": []}}, "'data.modalities' must not be empty"),
        ({"data": {"modalities": ["text", "text"]}}, "'data.modalities' lists a value twice"),
        ({"data": {"normalize": ["txt"]}}, "names 'txt' (did you mean 'text'?)"),
        ({"run": {"seeds": []}}, "'run.seeds' must not be empty"),
        ({"graph": 3}, "'graph' must hold 'key: value' pairs (got 3)"),
    ],
)
def test_wrong_settings_name_key_and_remedy(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict(settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_are_coerced() -> None:
    config = from_dict({"optim": {"lr": "1e-3", "epochs": "3", "weight_decay": 0}, "self_training": {"k": "7"}})
    assert config.optim.lr == 1e-3
    assert config.optim.epochs == 3
    assert isinstance(config.optim.weight_decay, float)
    assert config.self_training.k == 7


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("optim:\n  lr: 1e-3\nmodel:\n")
    config = load_config(
        path,
        ["optim.lr=2e-3", "model.modality_dropout.text=0.1", "run.seeds=[1, 2]", "self_training.k=all"],
        environ={},
    )
    assert (config.optim.lr, config.model.modality_dropout.of("text")) == (2e-3, 0.1)
    assert (config.run.seeds, config.self_training.k) == ((1, 2), "all")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr", "settings are changed by key=value"),
        ("optim.lrr=1", "did you mean 'lr'?"),
        ("optim.lr.x=1", "'optim.lr' must be a number"),
        ("a: b=[", "not valid YAML"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("")
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override], environ={})
    assert message in str(caught.value)


def test_an_override_below_a_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("optim:\n  lr: 1e-3\n")
    with pytest.raises(ConfigError, match="'lr' is a value, not a group"):
        load_config(path, ["optim.lr.x=1"], environ={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: [", "not valid YAML"),
        ("- a", "expected 'key: value' pairs at the top (got list)"),
        ("optim:\n  lr: 1\n  lr: 2\n", "duplicate key 'lr'"),
        ("run: !!python/object/apply:os.system [echo]", "not valid YAML"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; give a file, or one that comes with gmsa: meld_context, "):
        load_config(tmp_path / "none.yaml", environ={})


def test_data_named_by_the_user_never_falls_back(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("data:\n  if_missing: synthetic\n")
    assert load_config(path, environ={}).data.if_missing == "synthetic"
    by_variable = load_config(path, environ={"GMSA_DATA": "/x/mosi.pkl"}).data
    assert (by_variable.path, by_variable.if_missing) == ("/x/mosi.pkl", "error")
    by_override = load_config(path, ["data.path=b.pkl"], environ={"GMSA_DATA": "/x/mosi.pkl"}).data
    assert (by_override.path, by_override.if_missing) == ("b.pkl", "error")


def test_data_named_in_python_never_falls_back() -> None:
    base = from_dict({"data": {"path": "a.pkl", "if_missing": "synthetic"}})
    named = override(base, ["data.path=b.pkl"]).data
    assert (named.path, named.name, named.if_missing) == ("b.pkl", "b", "error")
    named = override(base, ['data.path="b: c.pkl"', "data.if_missing=synthetic", "data.name=mine"]).data
    assert (named.path, named.name, named.if_missing) == ("b: c.pkl", "mine", "synthetic")
    assert override(base, ["optim.lr=1"]).data == base.data


def test_paths_of_settings_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CORPORA", "/corpora")
    monkeypatch.delenv("NOWHERE", raising=False)
    path = tmp_path / "a.yaml"
    path.write_text("data: {path: $CORPORA/clips.pkl, pool: ~/pool.pkl}\nprotocol: {init_from: '${CORPORA}/run'}\n")
    config = load_config(path, environ={})
    assert (config.data.path, config.data.name) == ("/corpora/clips.pkl", "clips")
    assert (config.data.pool, config.protocol.init_from) == (f"{tmp_path}/home/pool.pkl", "/corpora/run")
    assert load_config(path, ["data.path=~/x.pkl"], environ={}).data.path == f"{tmp_path}/home/x.pkl"
    assert load_config(path, environ={"GMSA_DATA": "~/y.pkl"}).data.path == f"{tmp_path}/home/y.pkl"
    assert override({"data.path": "$CORPORA/z.pkl"}).data.name == "z"
    assert override(config, ["data.pool=$CORPORA/p"]).data.pool == "/corpora/p"
    assert from_dict({"data": {"path": "$CORPORA/z.pkl"}}).data.path == "$CORPORA/z.pkl"  # maybe a stranger's run
    Path("a$CORPORA$_b.pkl").touch()
    assert override({"data.path": "a$CORPORA$_b.pkl"}).data.path == "a$CORPORA$_b.pkl"  # it is there by this name
    for overrides, environ, said in (
        (
            ["data.path=$NOWHERE/x"],
            {},
            "--set data.path=$NOWHERE/x: 'data.path': '$NOWHERE/x': the variable NOWHERE is n",
        ),
        (
            [],
            {"GMSA_DATA": "${NOWHERE}"},
            "$GMSA_DATA: 'data.path': '${NOWHERE}': the variable NOWHERE is not set; set",
        ),
        (
            ["data={pool: $NOWHERE}"],
            {},
            "--set data={pool: $NOWHERE}: 'data.pool': '$NOWHERE': the variable NOWHERE is",
        ),
        (
            ["protocol.init_from=~nobody_of_this_name/x"],
            {},
            "'protocol.init_from': '~nobody_of_this_name/x': there is no",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            load_config(path, overrides, environ)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lr=x", "--set optim.lr=x: 'optim.lr' must be a number (got 'x')"),
        ("optim={lr: -1}", "--set optim={lr: -1}: 'optim.lr' must be greater than 0"),
        ("optim.lrr=1", "--set optim.lrr=1: unknown key 'optim.lrr' (did you mean 'lr'?)"),
        ("optim.lr.deep=1", "--set optim.lr.deep=1: unknown key 'optim.lr.deep': 'lr' is a value, not a group"),
        ("data.labels=mos", "--set data.labels=mos: 'target.preset' must be one of mosi, mosei"),
        ("run.metrics=5", "--set run.metrics=5: 'run.metrics' must be a list"),
        (f"data.name={'x' * 5000}", "--set data.name=xxxx"),
        ("optim.weight_decay=1", "a.yaml: 'optim.lr' must be greater than 0"),
    ],
)
def test_what_is_wrong_is_said_of_the_place_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("optim: {lr: -2}\n")
    with pytest.raises(ConfigError) as caught:
        load_config("a.yaml", ["optim.lr=1", override] if "weight" not in override else [override])
    assert str(caught.value).startswith(said)
    assert len(str(caught.value)) <= 400


def test_data_has_the_name_of_its_file_unless_the_user_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("data: {path: data/mosi/aligned_50.pkl, name: mosi}\n")
    assert load_config(path, environ={}).data.name == "mosi"
    assert load_config(path, environ={"GMSA_DATA": "/x/clips.pkl"}).data.name == "clips"
    assert load_config(path, ["data.path=own/store"], environ={}).data.name == "store"
    assert load_config(path, ["data.path=own.pkl", "data.name=mine"], environ={}).data.name == "mine"
    assert load_config(path, ["data.path=synthetic"], environ={}).data.name == "synthetic"
    path.write_text("data: {path: own/clips.pkl}\n")
    assert load_config(path, environ={}).data.name == "clips"
    assert Config().data.name == "synthetic"


@pytest.mark.parametrize(
    ("override", "metrics"), [("run.metrics+=RMSE", ("CCC", "RMSE")), ("run.metrics+=[CCC, RMSE]", ("CCC", "RMSE"))]
)
def test_adding_to_a_list(tmp_path: Path, override: str, metrics: tuple[str, ...]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("run: {metrics: [CCC]}\n")
    assert load_config(path, [override], environ={}).run.metrics == metrics
    path.write_text("")
    assert load_config(path, ["run.metrics+=CCC", override], environ={}).run.metrics == metrics


@pytest.mark.parametrize(
    ("text", "overrides", "form"),
    [
        ("", ["model.layer=gatv2", "model.layer.heads=4"], "model.layer=gatv2(heads=4)"),
        ("model: {layer: gatv2}", ["model.layer.slope=0.1"], "model.layer=gatv2(slope=0.1)"),
        ("model: {layer: sage}", ["model.layer.aggr=max"], "model.layer=sage(aggr=max)"),
        ("", ["model.layer.heads=4"], "model.layer=attention(heads=4)"),
        ("model: {layer: {name: gatv2, heads: 4}}", [], "model.layer=gatv2(heads=4)"),
        ("model: {layer: {name: gatv2}}", [], "model.layer=gatv2,"),
        ("model: {layer: {intra: {name: gatv2, heads: 4}}}", [], "model.layer.intra=gatv2(heads=4)"),
        ("model: {layer: {gatv2: {heads: 4}}}", [], "model.layer=gatv2(heads=4)"),
        ("model: {name: {mmgcn: {gamma: 2}}}", [], "model.name=mmgcn(gamma=2)"),
        ("", ["model.encoder.x=3"], "model.encoder=NAME(x=3)"),
        ("", ["model.encoder=conv", "model.encoder.x=3"], "model.encoder=NAME(x=3)"),
        ("", ["model.name=mmgcn", "model.name.gamma=2"], "model.name=mmgcn(gamma=2)"),
        ("model: {name: {name: mmgcn, gamma: 2}}", [], "model.name=mmgcn(gamma=2)"),
        ("", ["graph.intra=window", "graph.intra.radius=3"], "graph.intra=window(radius=3)"),
        ("", ["graph.intra.radius=3"], "graph.intra=NAME(radius=3)"),
        ("graph: {between: knn}", ["graph.between.neighbors=3"], "graph.between=knn(neighbors=3)"),
        ("run: {callbacks: [{name: wandb, project: x}]}", [], "run.callbacks=wandb(project=x)"),
    ],
)
def test_parameters_of_a_part_stand_in_brackets(tmp_path: Path, text: str, overrides: list[str], form: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides, environ={})
    assert f"takes parameters in brackets: write {form}" in str(caught.value)
    assert len(str(caught.value)) <= 400


def test_adding_to_what_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("optim: {lr: 0.1}\n")
    with pytest.raises(ConfigError, match=r"'optim\.lr' is no list, to which \+= could add; use = \(got 0\.1\)"):
        load_config(path, ["optim.lr+=1"], environ={})
