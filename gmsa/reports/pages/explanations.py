"""The page of explanations, from what ``explanations.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gmsa.reports.pages import html
from gmsa.reports.tables import plural

MOST_SHOWN = 50
"""Utterances of a page: of more, the first ones; the other files have all."""
STRONGEST = 10
"""Tokens of a table."""
NOT = (
    "These numbers say what the model made of its input, not what the speaker felt, and not what would happen in the "
    "world if they had spoken otherwise. A contribution depends on what else the model was given."
)
"""What explanations are not."""
UNFAITHFUL = "No faithful explanation by tokens for this utterance"
"""Begins what is said where the deletion check fails."""

TINTS = "solid line: raises the prediction; dashed: lowers it"
"""What the lines under tokens mean."""


def explanations_page(content: Mapping[str, Any], title: str, synthetic: bool, figure: bytes = b"") -> str:
    """The page, which needs no other file.

    Args:
        content: that of ``explanations.json``.
        figure: SVG of the contributions of modalities.
    """
    found = content["utterances"]
    seeds = ", ".join(map(str, content["seeds"]))
    over = f"mean ± standard deviation over seeds {seeds}" if len(content["seeds"]) > 1 else f"seed {seeds}"
    lead = f"What the {content['explained']} of {plural(len(found), 'utterance')} comes from; {over}."
    mean = [[name, f"{size:.3f}"] for name, size in content["importance"].items()]
    parts = [
        html.paragraph(lead),
        html.paragraph(NOT),
        html.section("Mean size of contributions", html.table(["Modality", "Mean"], mean, ("Modality",))),
    ]
    if figure:
        parts.append(html.section("Modalities", html.figure(figure, "Bars from the base to each prediction")))
    if len(found) > MOST_SHOWN:
        rest = f"The first {MOST_SHOWN} are shown; explanations.json, modalities.csv and words.csv have all."
        parts.append(html.paragraph(rest))
    parts += [html.section(item["id"], *_utterance(item, len(content["seeds"]) > 1)) for item in found[:MOST_SHOWN]]
    if content["reasons"]:
        table = html.table(["Utterance", "Reason"], [*content["reasons"].items()], ("Utterance", "Reason"))
        parts.append(html.section("Not explained", table))
    return html.page(title, parts, synthetic=synthetic)


def _utterance(item: Mapping[str, Any], several: bool) -> list[str]:
    facts = {} if item["class"] is None else {"Class": item["class"]}
    facts |= {"Prediction": f"{item['value']:.3f}", "Base": f"{item['base']:.3f} ({item['base_is']})"}
    if item["missing"]:
        facts["Missing"] = ", ".join(item["missing"])
    return [html.facts(facts), *_modalities(item, several), *_words(item["words"])]


def _modalities(item: Mapping[str, Any], several: bool) -> list[str]:
    """What each part contributes and what is predicted without it, and the prediction for every choice of parts."""
    names = [m for m in item["modalities"] if m not in item["missing"]]
    subsets = {_name(found): found["value"] for found in item["subsets"]}
    everything = max(item["subsets"], key=lambda found: len(found["modalities"]) + found["neighbors"])
    rows = [
        [
            name,
            f"{item['modalities'][name]:+.3f}" + (f" ± {item['spread'][name]:.3f}" if several else ""),
            f"{subsets[_name({**everything, 'modalities': [m for m in everything['modalities'] if m != name]})]:.3f}",
        ]
        for name in names
    ]
    if item["neighbors"] is not None:
        alone = subsets[_name({**everything, "neighbors": False})]
        rows.append(["other utterances of the dialogue", f"{item['neighbors']:+.3f}", f"{alone:.3f}"])
    table = html.table(["Part", "Contribution", "Prediction without it"], rows, ("Part",))
    choices = [[name or "nothing", f"{value:.3f}"] for name, value in subsets.items()]
    return [table, html.fold("If some were missing", html.table(["Given", "Prediction"], choices, ("Given",)))]


def _name(found: Mapping[str, Any]) -> str:
    """A choice of parts in words; that of none is empty."""
    return " + ".join([*found["modalities"], *(["other utterances"] if found["neighbors"] else [])])


def _words(words: Mapping[str, Any] | None) -> list[str]:
    if words is None:
        return []
    check = words["check"]
    if not check["removed"]:
        told = f"{UNFAITHFUL}: it has too few tokens to compare."
    else:
        told = (
            f"Without the {plural(check['removed'], 'token')} that rank first by {words['method']}, the prediction "
            f"falls by {check['fall']:.3f} towards the base; without as many drawn at random by {check['random']:.3f}, "
            f"and by less in {100 * check['beaten']:.0f} % of the draws."
        )
        told = told if words["faithful"] else f"{UNFAITHFUL}. {told}"
    tokens = [(m, t["token"], t["contribution"]) for m, found in words["tokens"].items() for t in found]
    strongest = sorted(tokens, key=lambda token: -abs(token[2]))[:STRONGEST]
    table = html.table(["Modality", "Token", "Contribution"], _rows(strongest), ("Modality", "Token"))
    lines = [html.paragraph(told)]
    shown = [
        part
        for m, found in words["tokens"].items()
        if found and not all(t["token"] == f"token {i}" for i, t in enumerate(found, 1))
        for part in (html.paragraph(f"{m} ({TINTS}):"), html.tinted([(t["token"], t["contribution"]) for t in found]))
    ]
    if words["faithful"]:
        return [*lines, *shown, html.fold("Strongest tokens", table)]
    return [*lines, html.fold("The contributions all the same", *shown, table)]


def _rows(tokens: Sequence[tuple[str, str, float]]) -> list[list[str]]:
    return [[m, token, f"{x:+.3f}"] for m, token, x in tokens]
