"""The report of another system's answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gmsa.reports.tables import cell, escape_markdown, pipes, plural, title


def markdown_answers(content: Mapping[str, Any]) -> str:
    """Scores of a system, beside those of a run if there is one, and what was not scored.

    Args:
        content: as :func:`gmsa.runs.scoring.answers.evaluate_answers` returns it.
    """
    run = content.get("run")
    names = [content["system"], *([run["name"]] if run else [])]
    systems = [content["scores"], *([run["scores"]] if run else [])]
    rows = [
        [title(metric), *(cell(metric, {"mean": scores[metric], "values": [scores[metric]]}) for scores in systems)]
        for metric in content["scores"]
    ]
    data = f"{content['dataset']}, split {content['split']}, SHA-256 {content['data_sha256']}"
    text = (
        f"# Answers of {escape_markdown(content['system'])}\n\n"
        f"{plural(content['utterances'], 'utterance')} of {escape_markdown(data)}; "
        f"target: {escape_markdown(content['target'])}.\n\n{pipes(['Metric', *names], rows, ('Metric',))}"
    )
    if run:
        seeds = ", ".join(map(str, run["seeds"]))
        tests = [[title(metric), *_test_cells(metric, found)] for metric, found in content["tests"].items()]
        text += (
            f"\nOf {escape_markdown(run['name'])} the mean prediction over the seeds ({seeds}) is scored.\n\n"
            f"{pipes(['Metric', 'Difference', '95 % interval', 'p'], tests, ('Metric',))}\n"
            f"Difference: {escape_markdown(content['system'])} minus {escape_markdown(run['name'])}, on the same "
            "utterances. Interval: paired bootstrap. p: paired permutation test, not corrected for several metrics.\n"
        )
    for key, what in (("missing", "Utterances without an answer"), ("unknown", "Answers for no utterance")):
        if found := content[key]["count"]:
            first = ", ".join(content[key]["first"])
            more = ", …" if found > len(content[key]["first"]) else ""
            text += f"\n{what}: {found} ({escape_markdown(first + more)}).\n"
    return text


def _test_cells(metric: str, found: Mapping[str, float]) -> list[str]:
    difference, low, high = (cell(metric, {"mean": found[key], "values": [0]}) for key in ("difference", "low", "high"))
    return [difference, f"{low} to {high}", f"{found['p']:.4f}"]
