"""Explanations of predictions: do the tokens that they name matter, and what do they cost?

    python benchmarks/explain.py --out runs/explain

A model is trained for 5 epochs, then the first 60 test utterances are explained. Deletion: the share of the tokens that
holds a prediction up the most is taken out; the table has how far it then falls towards the mean training label, on
average. Attention has no sign: its largest weights go first. That parts add up and that batches say what single
utterances say is asserted first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from common import QUICK, header, machine, outcome, real_data, row, spread
from common import run as trained

from gmsa.explain import (
    Predictor,
    Score,
    View,
    explain,
    integrated_gradients,
    occlusion,
    path_gradients,
    shapley_values,
    subset_values,
    views_of,
)
from gmsa.explain.deletion import removed_of, strongest
from gmsa.rng import generator
from gmsa.runs import Run
from gmsa.runs.prepare import prepare
from gmsa.runs.states import Attention

SHARES = (0.1, 0.2, 0.3, 0.5)
STEPS = (16, 32, 64, 128)
DRAWS = 20
Contributions = Mapping[str, np.ndarray]
Method = Callable[[View], Contributions]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/explain"), help="folder of the run")
    parser.add_argument("--count", type=int, default=60, help="test utterances to explain")
    parser.add_argument("--quick", action="store_true", help="a tiny training, to see that it runs: no number counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    given = QUICK if options.quick else (f"data.path={real_data()}", "optim.epochs=5")
    trained(options.out / "run", "mosi_graph.yaml", [1], ["protocol.name=supervised", "run.device=cpu", *given])
    run, count = Run(options.out / "run"), 6 if options.quick else options.count
    raw = list(prepare(run.config).corpus.splits["test"])[:count]
    utterances = [run.normalizer.apply(u) for u in raw]
    views = [*views_of(utterances, run.config, range(len(utterances)))]
    (base,) = run.environment["base"]
    predictor = Predictor([run.load_model(1, "cpu")], run.config, torch.device("cpu"))
    score = Score(predictor, 0, base)
    values = score(views)
    check(score, views, values)
    tokens = np.array([len(view.tokens) for view in views])
    data = "synthetic data" if run.synthetic else "mosi_dev.pkl"
    print(f"{len(views)} test utterances of {data}, {spread(tokens, 0)} tokens (median, quartiles)")
    attention = run.attention(raw, seed=1)
    methods: dict[str, Method] = {
        "occlusion": lambda view: occlusion(score, view),
        "integrated gradients": lambda view: integrated_gradients(score, view, float(score([view])[0])).tokens,
        "gradient x input": lambda view: path_gradients(score, view, [1.0]),
        "attention of the last layer": lambda view: attended(attention, view),
        "random": lambda view: drawn(view, 0),
    }
    header(
        "How far predictions fall towards the mean training label when a share of the tokens is taken out",
        *("method", "CPU ms per utterance", *(f"{share:.0%}" for share in SHARES)),
    )
    falls = {}
    for name, method in methods.items():
        begin = time.process_time()
        found = [method(view) for view in views]
        cost = 1e3 * (time.process_time() - begin) / len(views)
        signed = not name.startswith("attention")
        falls[name] = fall(score, views, values, [found], signed)
        if name == "random":
            draws = [[drawn(view, k) for view in views] for k in range(DRAWS)]
            falls[name] = fall(score, views, values, draws, signed)
        row(name, f"{cost:.1f}" if name not in ("random",) and signed else "", *(f"{x:.2f}" for x in falls[name]))
    completeness(score, views, values)
    costs(predictor, views, run, base)
    better = falls["integrated gradients"][1], falls["random"][1]
    print()
    outcome("integrated gradients above random at 20 %", f"{better[0]:.2f} and {better[1]:.2f}", better[0] > better[1])
    print(f"\n{machine()}")


def check(score: Score, views: list[View], values: np.ndarray) -> None:
    """Contributions of modalities add up, and batches say what single utterances say."""
    for view, value in zip(views, values, strict=True):
        found = shapley_values(view.parts, subset_values(score, view))
        assert abs(score.base + sum(float(x[0]) for x in found.values()) - value) < 1e-5
    view = min(views, key=lambda view: len(view.tokens))
    for m, contributions in occlusion(score, view).items():
        for place, x in enumerate(contributions):
            assert abs(float(score([view])[0] - score([view.without([(m, place)])])[0]) - x) < 1e-5


def attended(attention: Attention, view: View) -> Contributions:
    """How much val attends to each step, the mean over both streams."""
    found = {m: np.zeros(length) for m, length in view.own.lengths.items()}
    for stream in attention.streams:
        for m, weights in attention.of(view.own.id, stream, "val").items():
            each = np.repeat(weights, attention.steps[attention.node_types.index(m)])[: len(found[m])]
            found[m] += each / len(attention.streams)
    return found


def drawn(view: View, number: int) -> Contributions:
    """Contributions drawn at random."""
    rng = generator(number, view.own.id, "random contributions")
    return {m: rng.standard_normal(length) for m, length in view.own.lengths.items()}


def fall(
    score: Score, views: list[View], values: np.ndarray, several: list[list[Contributions]], signed: bool
) -> list[float]:
    """Mean fall at each share, over utterances and over several sets of contributions."""
    ways = np.where(values >= score.base, 1.0, -1.0)
    means = []
    for share in SHARES:
        found = []
        for contributions in several:
            left = [
                view.without(strongest(view.tokens, c, way if signed else 1.0)[: removed_of(len(view.tokens), share)])
                for view, c, way in zip(views, contributions, ways, strict=True)
            ]
            found.append(ways * (values - score(left)))
        means.append(float(np.mean(found)))
    return means


def completeness(score: Score, views: list[View], values: np.ndarray) -> None:
    header("Completeness error of integrated gradients, by the number of gradients", "gradients", "median", "95 %")
    for steps in STEPS:
        errors = [
            integrated_gradients(score, view, float(value), steps, steps).error
            for view, value in zip(views, values, strict=True)
        ]
        row(steps, *(f"{100 * np.percentile(errors, q):.1f} %" for q in (50, 95)))


def costs(predictor: Predictor, views: list[View], run: Run, base: float) -> None:
    header(
        "What an explanation costs, and how many are faithful",
        "explained",
        "CPU ms per utterance",
        "faithful",
        "occlusion",
    )
    utterances = [view.own for view in views]
    for words in (False, True):
        begin = time.process_time()
        found = explain(predictor.models, utterances, run.config, base=[base], seeds=[1], words=words)
        cost = 1e3 * (time.process_time() - begin) / len(views)
        told = [item.words for item in found if item.words is not None]
        faithful, occluded = sum(w.faithful for w in told), sum(w.method == "occlusion" for w in told)
        shares = [f"{faithful} of {len(told)}", f"{occluded} of {len(told)}"] if words else ["", ""]
        row("modalities and tokens" if words else "modalities", f"{cost:.1f}", *shares)
    mean = ", ".join(f"{m} {x:.2f}" for m, x in found.importance().items())
    print(f"\nMean size of the modalities' contributions: {mean}.")


if __name__ == "__main__":
    main()
