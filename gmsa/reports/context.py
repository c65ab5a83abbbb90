"""The linear context baseline in a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gmsa.reports.tables import escape_markdown, plural

WITH_CONTEXT = "linear context"
"""What tables call the predictions with context."""
_REACHES = {"all": "all other utterances of a dialogue", "past": "the utterances before in a dialogue"}


def context_facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """What the baseline is, and its tests, by split; nothing of a summary without it."""
    found = summary.get("context")
    if not found:
        return {}
    weights = ", ".join(f"{name} {_signed(of['mean'])}" for name, of in found["weights"].items())
    held_out = "; in validation each dialogue by weights of others" if "valid" in found["scores"] else ""
    what = (
        f"{_REACHES[found['reach']]}, by their predictions alone; weights (mean over seeds) {weights}; fitted on the "
        f"run's validation split ({plural(found['utterances'], 'labeled utterance')} of "
        f"{plural(found['dialogues'], 'dialogue')}){held_out}"
    )
    tests = {f"With context, {s}": _test(test, found["scores"].get(s, {})) for s, test in found["tests"].items()}
    return {"Linear context": what} | tests


def markdown_context(summary: Mapping[str, Any]) -> str:
    """The same as lines below a table; nothing of a summary without context."""
    lines = [f"- {escape_markdown(key)}: {escape_markdown(value)}\n" for key, value in context_facts(summary).items()]
    return "\n" + "".join(lines) if lines else ""


def _test(test: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    error = "MAE" if "MAE" in scores else "share of wrong classes"
    difference, low, high = (_signed(test[key]) for key in ("difference", "low", "high"))
    return (
        f"{error} {difference} (95 % interval {low} to {high}, p {test['p']:.4f}; paired bootstrap over "
        f"{plural(test['dialogues'], 'dialogue')} and the seeds)"
    )


def _signed(number: float) -> str:
    return f"{number:+.4f}"
