"""What gmsa answers to hostile files, settings, names and rights: the tests that count, and their counts.

    python benchmarks/hostile.py

The tests assert what the table shows; a count under "other" is a failed test. "Refused" is exit code 2 and one line
before any work (of a library call: one error of gmsa's own), "right" an answer as good as without the change.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from common import ROOT, header, machine, row

TESTS = (
    "tests/config/test_random_changes.py",
    "tests/runs/test_hostile_runs.py",
    "tests/test_rights.py",
)
"""Files of tests that count, by ``record_property("counts", json)``."""


def main() -> None:
    """Runs the tests and prints their counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the tests that take minutes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        chosen = "not slow" if arguments.quick else "slow or not slow"
        command = [sys.executable, "-m", "pytest", *TESTS, "-m", chosen, "-q", "-p", "no:cacheprovider"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        print(f"Running {len(TESTS)} files of tests …", flush=True)
        done = subprocess.run(
            [*command, f"--junit-xml={report}"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if not report.exists():
            sys.exit(done.stdout + done.stderr)
        found = [
            json.loads(entry.attrib["value"])
            for case in ElementTree.parse(report).iter("testcase")
            for entry in case.iter("property")
            if entry.attrib["name"] == "counts"
        ]
    header("Hostile input", "what", "tried", "refused", "right", "other")
    for counts in found:
        row(counts["what"], *(f"{counts[name]:,}" for name in ("tried", "refused", "right", "other")))
    print(f"\n{done.stdout.strip().splitlines()[-1]}")
    print(f"\n{machine()}")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
