"""The page of a video, from what ``answer.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gmsa.reports.pages import html

NOT = (
    "An estimate of the sentiment that is expressed, by a model; not what a person feels, and no basis for decisions "
    "about people."
)
"""What an answer is not."""
UNFAITHFUL = "No faithful explanation for this clip: the words that it names do not matter more than others."


def video_page(answer: Mapping[str, Any], figure: bytes = b"") -> str:
    """The page, which needs no other file.

    Args:
        answer: content of ``answer.json``.
        figure: SVG of the timeline.
    """
    seeds = ", ".join(f"{seed}: {value:.3f}" for seed, value in answer["seeds"].items())
    facts = {"Answer": _answer(answer), "Seconds": f"{answer['duration']:.1f}", "Run": answer["run"]}
    facts |= {"By seed": seeds, "Speech": f"{answer['speech']:.0%}", "Face": f"{answer['face']:.0%}"}
    classes = [[name, f"{share:.3f}"] for name, share in answer["probabilities"].items()]
    parts = [html.facts(facts), html.paragraph(NOT)]
    if answer["warnings"]:
        rows = [[line] for line in answer["warnings"]]
        parts.append(html.section("Warnings", html.table(["Warning"], rows, ("Warning",))))
    if figure:
        caption = "Each point is what is predicted of the seconds around it; shaded: every other segment"
        parts.append(html.section("Along the video", html.figure(figure, "Predictions along the video", caption)))
    parts.append(html.fold("Probabilities of the classes", html.table(["Class", "Probability"], classes, ("Class",))))
    parts += [_segment(segment) for segment in answer["segments"]]
    return html.page(answer["video"], parts, synthetic=answer["synthetic"])


def _answer(found: Mapping[str, Any]) -> str:
    return found["label"] if found["value"] is None else f"{found['value']:.3f} ({found['label']})"


def _segment(segment: Mapping[str, Any]) -> str:
    """A segment: its words, tinted by what they contribute, and its modalities."""
    facts = {"Seconds": f"{segment['start']:.1f} to {segment['stop']:.1f}", "Answer": _answer(segment)}
    facts |= {f"{m} is missing": why for m, why in segment["missing"].items()}
    parts = [html.facts(facts)]
    tinted = [(w["text"], sum(x for x in w["contribution"].values() if x is not None)) for w in segment["words"]]
    if tinted and segment["faithful"]:
        parts.append(html.tinted(tinted))
    elif tinted:
        parts.append(html.paragraph(" ".join(word for word, _ in tinted)))
    if segment["faithful"] is False:
        parts.append(html.paragraph(UNFAITHFUL))
    elif segment["note"]:
        parts.append(html.paragraph(segment["note"]))
    found = segment["modalities"]
    if found is not None:
        rows = [["base", f"{found['base']:+.3f}"]]
        rows += [[name, f"{part:+.3f}"] for name, part in found["parts"].items() if name not in segment["missing"]]
        nothing = "nothing"
        if found["neighbors"] is not None:
            rows.append(["other segments", f"{found['neighbors']:+.3f}"])
            nothing = "the other segments alone"
        rows.append([f"probability of {found['class']}" if found["class"] else "answer", f"{found['value']:+.3f}"])
        parts.append(html.table(["Part", "Contribution"], rows, ("Part",)))
        choices = [[name.replace("+", " + ") or nothing, f"{value:.3f}"] for name, value in segment["subsets"].items()]
        parts.append(html.fold("If some were missing", html.table(["Given", "Prediction"], choices, ("Given",))))
    return html.section(segment["id"], *parts)
