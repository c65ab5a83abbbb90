"""A training step of this code beside that of an earlier commit, in turns.

    python benchmarks/commits.py --commit 896faeb

The earlier commit is checked out beside this one for as long as it takes. A process for each, with the same data, start
and draws, takes some steps while the other waits, and says what they cost in seconds of the core. That both have the
same losses, up to rounding, is asserted. The data are those of ``roofline.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
EARLIER = "896faeb"
PARTS = ("data", "forward", "backward", "update")


def work(tree: str, case: int, count: int) -> None:
    """A process of one commit: takes as many steps as it reads, and says what they cost and their losses."""
    sys.path[:0] = [tree, str(Path(tree) / "benchmarks")]
    sys.path.append(str(HERE.parent))  # for what the earlier commit has not
    import step
    import torch
    from common import training_utterances
    from roofline import SETTINGS, utterances_of

    import gmsa
    from gmsa.data import Target
    from gmsa.models import build_model
    from gmsa.training.examples import labeled_examples

    assert Path(gmsa.__file__).is_relative_to(tree)
    torch.set_num_threads(1)
    try:
        from gmsa.system.memory import keep_freed_memory

        keep_freed_memory()  # as its commands do
    except ImportError:
        pass
    if case:
        utterances, dims, config = utterances_of(SETTINGS[case - 1], count)
    else:
        found, dims, config, _ = training_utterances("mosi")
        utterances = found[:count]
    clock: Any = step.time
    clock.perf_counter = time.process_time
    torch.manual_seed(0)
    examples = labeled_examples(utterances, Target())
    run = step.Graph(build_model(dims, config), config, torch.device("cpu"), examples, 10**6)
    losses: list[float] = []
    loss: Any = step.loss

    def kept(*given: Any) -> Any:
        value = loss(*given)
        losses.append(float(value.detach()))
        return value

    step.loss = kept
    per_epoch, taken = -(-count // config.optim.batch_size), 0
    print("ready", flush=True)
    for line in sys.stdin:
        rows = []
        for _ in range(int(line)):
            if taken % per_epoch == 0:
                run.begin(taken // per_epoch)
            laps = run.step()
            taken += 1
            update = laps["clip"] + laps["optimizer"] + laps["average"]
            rows.append([laps["data"], laps["forward"] + laps["loss"], laps["backward"], update])
        print(json.dumps([rows, losses]), flush=True)


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with an earlier commit."""
    root, git = HERE.parents[1], ["git", "-C", str(HERE.parents[1]), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "earlier"
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True, cwd=root)


class Side:
    """The process of one commit."""

    def __init__(self, tree: Path, case: int, count: int) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(HERE), "--worker", str(tree), str(case), str(count)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        self.laps: list[list[float]] = []
        self.losses: list[float] = []

    def read(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        line: str = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a process ended with exit code {self.process.wait()}")
        return line

    def take(self, steps: int, counted: bool) -> None:
        """Some steps."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        rows, self.losses = json.loads(self.read())
        self.laps += [np.mean(rows, axis=0).tolist()] if counted else []


def compare(name: str, trees: dict[str, Path], case: int, quick: bool) -> float:
    """Prints a row for each commit; returns how many times as fast this one is."""
    from common import row, spread

    count, rounds, each = (64, 1, 1) if quick else (512, 12, 8)
    sides = {key: Side(tree, case, count) for key, tree in trees.items()}
    for side in sides.values():
        side.read()
    for turn in range(rounds + 1):
        for side in sides.values():
            side.take(each, turn > 0)
    for side in sides.values():
        side.process.communicate()
    earlier, now = sides.values()
    np.testing.assert_allclose(now.losses, earlier.losses, rtol=2e-3)
    ratios = {key: np.array(earlier.laps).sum(1) / np.array(side.laps).sum(1) for key, side in sides.items()}
    for key, side in sides.items():
        laps = 1e3 * np.array(side.laps)
        parts = (f"{value:.1f}" for value in np.median(laps, axis=0))
        row(name, key, spread(laps.sum(1)), *parts, f"{np.median(ratios[key]):.2f}")
    return float(np.median(ratios["now"]))


def main() -> None:
    from common import begin, header, machine, options, outcome
    from roofline import SETTINGS

    parser = options(__doc__)
    parser.set_defaults(threads=1)
    parser.add_argument("--commit", default=EARLIER, help="the earlier commit")
    arguments = parser.parse_args()
    device, quick = begin(arguments), arguments.quick
    with checked_out("HEAD" if quick else arguments.commit) as tree:
        header(
            f"A training step of 32 utterances, by commit {'HEAD' if quick else arguments.commit} and now: means of 8 "
            "steps; their medians",
            *("data", "", "ms per step [quartiles]", *(f"{part}, ms" for part in PARTS), "times as fast"),
        )
        names = ["mosi_dev.pkl", *(setting.name for setting in SETTINGS)][: 2 if quick else None]
        trees = {"earlier": tree, "now": HERE.parents[1]}
        found = [compare(name, trees, case, quick) for case, name in enumerate(names)]
    print()
    outcome("at least 1.25 times as fast, on all data", f"{min(found):.2f} times at least", min(found) >= 1.25)
    print(f"\n{machine(device)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
