"""Models and layers on real data: what each says, how many parameters it has, and how long it trains.

    python benchmarks/models.py --part mosi --out runs/models
    python benchmarks/models.py --part meld --out runs/models
    python benchmarks/models.py --part layers --out runs/models
    python benchmarks/models.py --part layers_mosi --out runs/models
    python benchmarks/models.py --part layers_meld --out runs/models

``mosi``: every model on graphs of CMU-MOSI's videos over those of their utterances. ``meld``: emotions of MELD from
text; published models of conversations on graphs of dialogues, as in their papers, the others on both levels.
``layers``: every layer in both streams of Semi-IIN, on graphs of CMU-MOSI's utterances; ``layers_mosi`` and
``layers_meld``: the same on both levels, of CMU-MOSI and of MELD. Trained on labels alone, 3 seeds, one checkpoint
chosen on validation. Each table has Semi-IIN without context, and the linear context baseline
on top of it. A run that is there already is not repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import QUICK, SEEDS, add_quick, machine, real_data, run
from context import TASKS, UTTERANCE, Score, Scored, accuracy, corr, linear, mae, non0, read, spread, weighted_f1

from gmsa.registry import LAYERS, MODELS

CONVERSATIONS = ("dialogue_gcn", "cogmen", "gcnet", "mmgcn")
"""Models whose papers have graphs of dialogues, of means of features."""
OF_UTTERANCES = ("mtag",)
"""Models of single utterances."""
DIALOGUE = "graph.scope=dialogue"
MTAG = ("graph.intra=mtag", "graph.inter=mtag")
"""Edges of MTAG's paper."""
NO_CONTEXT = "semi_iin, no context"
"""The first row of a table: what the linear baseline adds context to."""
_SPLITS = ("valid", "test")
INTENSITY = [
    *((split, name, score) for split in _SPLITS for name, score in (("MAE", mae), ("Corr", corr))),
    ("test", "Non0 acc-2", non0),
]
CLASSES = [(s, name, score) for s in _SPLITS for name, score in (("weighted F1", weighted_f1), ("accuracy", accuracy))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"mosi": mosi, "meld": meld, "layers": layers, "layers_mosi": layers_mosi, "layers_meld": layers_meld}
    parser.add_argument("--part", choices=[*parts], default="mosi", help="which table")
    parser.add_argument("--only", default="", metavar="NAMES", help="models or layers, with commas; by default all")
    parser.add_argument("--out", type=Path, default=Path("runs/models"), help="folder of the runs")
    add_quick(parser)
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    parts[options.part](options.out / options.part, options.quick, only)
    print(f"\n{machine()}")


def mosi(out: Path, quick: bool, only: Sequence[str]) -> None:
    """Every model on CMU-MOSI."""
    given = of_mosi(quick)
    rows: dict[str, Sequence[str]] = {NO_CONTEXT: (UTTERANCE,)}
    for name in chosen(MODELS, only):
        changes = (f"model.name={name}", *((UTTERANCE, *MTAG) if name in OF_UTTERANCES else ()))
        rows[f"{name}, no context" if name in OF_UTTERANCES else name] = changes
    trained = train(out, "mosi_context.yaml", quick, rows, given)
    table(out, trained, NO_CONTEXT, INTENSITY)


def meld(out: Path, quick: bool, only: Sequence[str]) -> None:
    """Every model on the emotions of MELD."""
    given = of_meld(quick)
    rows: dict[str, Sequence[str]] = {NO_CONTEXT: (UTTERANCE,)}
    for name in chosen(MODELS, only):
        if name not in OF_UTTERANCES:
            rows[name] = (f"model.name={name}", *((DIALOGUE, "graph.context=10") if name in CONVERSATIONS else ()))
    trained = train(out, "meld_context.yaml", quick, rows, given)
    table(out, trained, NO_CONTEXT, CLASSES, 100, 1)


def layers(out: Path, quick: bool, only: Sequence[str]) -> None:
    """Every layer in both streams of Semi-IIN, on CMU-MOSI."""
    rows: dict[str, Sequence[str]] = {name: (f"model.layer={name}",) for name in chosen(LAYERS, only)}
    trained = train(out, "mosi_context.yaml", quick, rows, (*of_mosi(quick), UTTERANCE))
    table(out, trained, next(iter(trained)), INTENSITY)


def layers_mosi(out: Path, quick: bool, only: Sequence[str]) -> None:
    """Every layer in all streams of Semi-IIN, on graphs of CMU-MOSI's videos over those of their utterances."""
    table(out, train(out, "mosi_context.yaml", quick, with_layers(only), of_mosi(quick)), NO_CONTEXT, INTENSITY)


def layers_meld(out: Path, quick: bool, only: Sequence[str]) -> None:
    """The same on the emotions of MELD."""
    table(out, train(out, "meld_context.yaml", quick, with_layers(only), of_meld(quick)), NO_CONTEXT, CLASSES, 100, 1)


def with_layers(only: Sequence[str]) -> dict[str, Sequence[str]]:
    """A row per layer, and Semi-IIN without context."""
    return {NO_CONTEXT: (UTTERANCE,)} | {name: (f"model.layer={name}",) for name in chosen(LAYERS, only)}


def of_mosi(quick: bool) -> tuple[str, ...]:
    """What the settings of CMU-MOSI change."""
    return (*QUICK,) if quick else (f"data.path={real_data()}",)


def of_meld(quick: bool) -> tuple[str, ...]:
    """What the settings of MELD change."""
    if quick:  # made-up dialogues, which have a sentiment
        small = [x for x in QUICK if not x.startswith("data.")]
        return "data.path=synthetic_speaker", *TASKS["sentiment"], *small
    return f"data.path={real_data('meld_dev.pkl')}", *TASKS["emotion"]


def chosen(registry: Sequence[str] | Mapping[str, object], only: Sequence[str]) -> list[str]:
    """The names of a registry, or those that are asked for."""
    return [name for name in registry if not only or name in only]


def train(
    out: Path, config: str, quick: bool, rows: Mapping[str, Sequence[str]], given: Sequence[str]
) -> dict[str, dict[str, Scored]]:
    """Trains each row, and reads its predictions."""
    found = {}
    for name, changes in rows.items():
        seeds, folder = SEEDS[: 1 if quick else 3], out / name.replace(", ", "-").replace(" ", "-")
        run(folder, config, seeds, [*given, *changes])
        found[name] = {split: read(folder, seeds, split) for split in ("valid", "test")}
    return found


def table(
    out: Path,
    trained: Mapping[str, Mapping[str, Scored]],
    first: str,
    columns: Sequence[tuple[str, str, Score]],
    scale: float = 1,
    digits: int = 3,
) -> None:
    """Prints a row per system with its costs, and the linear context baseline on the first."""
    print(f"| | parameters | seconds | {' | '.join(f'{split} {name}' for split, name, _ in columns)} |")
    print(f"| :-- | --: | --: | {' | '.join('--:' for _ in columns)} |")
    rows = {first: trained[first], f"{first} + linear": linear(trained[first]), **trained}
    for name, of in rows.items():
        cost = " | "
        if name in trained:
            summary = json.loads((out / name.replace(", ", "-").replace(" ", "-") / "summary.json").read_text())
            cost = f"{summary['parameters']:,} | {summary['train_seconds']['mean']:.0f}"
        cells = [spread([scale * score(p, of[s].labels) for p in of[s].predictions], digits) for s, _, score in columns]
        print(f"| {name} | {cost} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
