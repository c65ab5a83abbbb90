"""Reading pickles with gmsa's own machine, which runs no code, against ``pickle.load``, which does.

    python benchmarks/unpickle.py

Time, and by how much the memory of a fresh process rises at most. Arrays are views on the mapped file, so reading
alone touches little of it; hence a second time, until each utterance is copied to float32, as the import does. The
peak is that of reading and copying, and counts all pages, also those that belong to the file and that the system may
drop; what is held after reading counts those that it may not. That both readers find the same is asserted first. The
first rows are files in MMSA's format; the last ones hold nothing but small things, which such files do not.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import find_data, header, machine, outcome, row

from gmsa.data.unpickling import load_pickle

BYTES_PER_UTTERANCE = 4 * 50 * (768 + 74 + 35)
MB = 1e6


def plainly(path: Path) -> Any:
    """What ``pickle.load`` reads."""
    with path.open("rb") as file:
        return pickle.load(file)


READERS: dict[str, Callable[[Path], Any]] = {"pickle": plainly, "gmsa": load_pickle}


def mmsa_shaped(size: int) -> dict[str, dict[str, Any]]:
    """Made up, of ``size`` bytes or so, in the shape of MMSA's aligned file of CMU-MOSEI."""
    rng = np.random.default_rng(0)
    content = {}
    for split, share in (("train", 0.7), ("valid", 0.1), ("test", 0.2)):
        count = max(2, round(share * size / BYTES_PER_UTTERANCE))
        content[split] = {
            "raw_text": np.array([f"{split} says something for the {i}th time" for i in range(count)], object),
            "audio": rng.standard_normal((count, 50, 74), dtype=np.float32),
            "vision": rng.standard_normal((count, 50, 35), dtype=np.float32),
            "id": [f"{split}{i // 10}$_${i % 10}" for i in range(count)],
            "text": rng.standard_normal((count, 50, 768), dtype=np.float32),
            "text_bert": np.ones((count, 3, 50), np.float32),
            "annotations": ["Neutral"] * count,
            "classification_labels": np.ones(count),
            "regression_labels": rng.uniform(-3, 3, count).astype(np.float32),
        }
    return content


def copy_all(value: Any) -> None:
    """Copies each entry of each array, to float32 where it holds numbers."""
    if isinstance(value, np.ndarray) and value.ndim:
        for item in value:
            np.array(item, dtype=np.float32 if value.dtype.kind in "biuf" else None)
    elif isinstance(value, Mapping):
        for inner in value.values():
            copy_all(inner)
    elif isinstance(value, list):
        for inner in value:
            copy_all(inner)


def assert_same(ours: Any, theirs: Any) -> None:
    """The same values in the same types."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert np.array_equal(ours, theirs, equal_nan=theirs.dtype.kind == "f")
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs


def memory(key: str) -> int:
    """Bytes that the kernel counts for this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def measure_here(reader: str, path: Path) -> dict[str, float]:
    """Seconds and bytes of one reading in this process, which should be fresh."""
    with tempfile.TemporaryDirectory() as folder:  # what the first reading of a process costs is not the file's
        tiny = Path(folder) / "tiny.pkl"
        tiny.write_bytes(pickle.dumps({"a": [np.ones(2, np.float32), np.array(["a"])]}))
        READERS[reader](tiny)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    resident, anonymous = memory("VmRSS"), memory("RssAnon")
    start = time.perf_counter()
    content = READERS[reader](path)
    read, held = time.perf_counter() - start, memory("RssAnon") - anonymous
    start = time.perf_counter()
    copy_all(content)
    copied = time.perf_counter() - start
    return {"read": read, "read and copied": read + copied, "peak": memory("VmHWM") - resident, "held": held}


def measure(path: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Medians for both readers, which take turns."""
    found: dict[str, list[dict[str, float]]] = {reader: [] for reader in READERS}
    for _ in range(repeats):
        for reader, results in found.items():
            command = [sys.executable, __file__, "--measure", reader, str(path)]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            results.append(json.loads(result.stdout))
    return {
        reader: {key: float(np.median([result[key] for result in results])) for key in results[0]}
        for reader, results in found.items()
    }


def files(folder: Path, size: int, count: int, quick: bool) -> dict[str, tuple[Path, bool]]:
    """Files to read, and whether each is in MMSA's format; those to be made are made when they are asked for."""
    real = () if quick else ("mosi_dev.pkl", "mmmo.pkl")
    found = {name: (find_data(name), True) for name in real if find_data(name).is_file()}
    rng = np.random.default_rng(0)
    made: dict[str, tuple[Callable[[], Any], tuple[int, ...], bool]] = {
        "aligned, as CMU-MOSEI": (lambda: mmsa_shaped(size), (2, 4, 5), True),
        f"{count} arrays [1 to 7, 20]": (lambda: [np.ones((i % 7 + 1, 20), "f4") for i in range(count)], (4, 5), False),
        f"{count} arrays [50, 20]": (lambda: [np.ones((50, 20), "f4") for _ in range(count)], (4, 5), False),
        f"{10 * count} numbers": (lambda: rng.standard_normal(10 * count).tolist(), (4,), False),
        f"{5 * count} strings": (lambda: [f"video{i}$_${i}" for i in range(5 * count)], (4,), False),
    }
    for i, (name, (content, protocols, is_mmsa)) in enumerate(list(made.items())[: 2 if quick else None]):
        for protocol in (4,) if quick else protocols:
            path = folder / f"{i}-{protocol}.pkl"
            with path.open("wb") as file:
                pickle.dump(content(), file, protocol)
            found[f"{name}, protocol {protocol}"] = path, is_mmsa
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=float, default=1000, help="MB of the file that is made up (default: 1000)")
    parser.add_argument("--repeats", type=int, default=3, help="processes per reader and file (default: 3)")
    parser.add_argument("--folder", help="where made-up files lie meanwhile (default: the system's for such)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs: times mean nothing")
    parser.add_argument("--measure", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        reader, path = arguments.measure
        print(json.dumps(measure_here(reader, Path(path))))
        return
    size, count, repeats = (10, 200, 1) if arguments.quick else (arguments.size, 20_000, arguments.repeats)
    slowest = most = 0.0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = files(Path(folder), int(size * MB), count, arguments.quick)
        header(
            f"Median of {repeats} fresh processes; memory as a share of the file's size",
            *("file", "MB", "pickle.load, ms", "gmsa, ms", "gmsa / pickle.load", "the same until copied"),
            *("peak, pickle.load", "peak, gmsa", "held by pickle.load", "held by gmsa"),
        )
        for name, (path, is_mmsa) in found.items():
            assert_same(load_pickle(path), plainly(path))
            results, bytes_ = measure(path, repeats), path.stat().st_size
            theirs, ours = results["pickle"], results["gmsa"]
            ratio = ours["read"] / theirs["read"]
            shares = [f"{one[key] / bytes_:.2f}" for key in ("peak", "held") for one in (theirs, ours)]
            times = [f"{1e3 * one['read']:.1f}" for one in (theirs, ours)]
            copied = ours["read and copied"] / theirs["read and copied"]
            row(name, f"{bytes_ / MB:.1f}", *times, f"{ratio:.2f}", f"{copied:.2f}", *shares)
            if is_mmsa:
                slowest, most = max(slowest, ratio), max(most, ours["peak"] / bytes_)
    print("\nBoth readers found the same in each file. For the files in MMSA's format:\n")
    outcome("time at most 3 × pickle.load", f"{slowest:.2f} ×", slowest <= 3)
    outcome("peak of memory at most 1.3 × the file", f"{most:.2f} ×", most <= 1.3)
    print(f"\n{machine()}, numpy {np.__version__}")


if __name__ == "__main__":
    main()
