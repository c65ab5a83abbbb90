"""What gmsa answers to hostile files, settings, names and rights: the tests that count, and their counts.

    python benchmarks/hostile.py

The tests assert what the table shows: the row of a failed test is missing, or counts it under "other", and the exit
code is pytest's. "Refused" is exit code 2 and one line before any work (of a library call: one error of gmsa's own),
"right" an answer as good as without the change.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import ROOT, header, machine, row

TESTS = (
    "tests/config/test_random_changes.py",
    "tests/runs/test_hostile_runs.py",
    "tests/training/test_hostile_states.py",
    "tests/tuning/test_journal.py",
    "tests/data/store/test_hostile_stores.py",
    "tests/data/test_hostile_content.py",
    "tests/reports/test_hostile_names.py",
)
"""Files of tests that count, by ``helpers.counts.tell``."""
CASES = {
    "tests/test_rights.py": "commands without a right, or at odd places",
    "tests/data/test_hostile_files.py": "readers of data at hostile places",
}
"""Files of tests in which every case is one that is refused."""


NUMBERS = ("tried", "refused", "right", "other")


def counted(cases: Sequence[ElementTree.Element]) -> list[dict[str, Any]]:
    """The counts of the tests, those of the same thing added up, and the number of cases of :data:`CASES`."""
    found: dict[str, dict[str, Any]] = {}
    for case in cases:
        told = [json.loads(e.attrib["value"]) for e in case.iter("property") if e.attrib["name"] == "counts"]
        file = case.attrib["classname"].replace(".", "/") + ".py"
        if file in CASES and "succeed" not in case.attrib["name"]:  # some show what works with all rights
            failed = any(case.iter("failure")) or any(case.iter("error"))
            told.append({"what": CASES[file], "tried": 1, "refused": int(not failed), "right": 0, "other": int(failed)})
        for counts in told:
            sums = found.setdefault(counts["what"], {"what": counts["what"], **dict.fromkeys(NUMBERS, 0)})
            for name in NUMBERS:
                sums[name] += counts[name]
    return list(found.values())


def main() -> None:
    """Runs the tests and prints their counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the tests that take minutes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        # With --quick, of each the part that `make test` runs.
        chosen = "not slow" if arguments.quick else "slow or not slow"
        command = [sys.executable, "-m", "pytest", *TESTS, *CASES, "-m", chosen, "-q", "-p", "no:cacheprovider"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        print(f"Running {len(TESTS) + len(CASES)} files of tests …", file=sys.stderr, flush=True)
        done = subprocess.run(
            [*command, f"--junit-xml={report}"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if not report.exists():
            sys.exit(done.stdout + done.stderr)
        cases = list(ElementTree.parse(report).iter("testcase"))
    header("Hostile input", "what", "tried", "refused", "right", "other")
    for counts in counted(cases):
        row(counts["what"], *(f"{counts[name]:,}" for name in NUMBERS))
    print(f"\n{done.stdout.strip().splitlines()[-1]}")
    print(f"\n{machine()}")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
