"""A trained model to hand on: what predicting needs and no more, with a model card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import gmsa
from gmsa.config import Config, RunConfig
from gmsa.data.targets import Target, describe_target
from gmsa.errors import RunError
from gmsa.reports.run import markdown_table
from gmsa.reports.summary import SYNTHETIC_NOTE, dataset_of, missing_lines
from gmsa.reports.tables import escape_markdown
from gmsa.runs.folder import Run, save_inputs
from gmsa.runs.settings import read_config
from gmsa.system.files import check_out_folder, make_folder, make_subfolder, write_bytes, write_json, write_text
from gmsa.system.reading import entries, read_bytes
from gmsa.text import describe_dims, texts_of
from gmsa.training.checkpoint import MOST_HEADER

KEPT = (
    *("versions", "data_sha256", "pool_sha256", "encoder_sha256", "plugins", "synthetic", "dims", "base"),
    "extraction",
)
"""What of ``environment.json`` goes with the model; the rest is about the machine that trained it."""


def save_model(run: Run, folder: Path) -> Path:
    """Writes a run's model into a new folder; see :meth:`Run.save`."""
    check_out_folder(folder)
    if entries(folder):
        raise RunError(f"'{folder}' is not empty; name another folder")
    seeds, summary = run.chosen_seeds(), _without_places(run.summary)
    sizes = {seed: sum(x.nbytes for x in run.weights(seed).values()) for seed in seeds}  # none that is damaged
    make_folder(folder)
    for seed, size in sizes.items():
        content = read_bytes(run.weights_file(seed), size + 2 * MOST_HEADER, inside=run.folder)
        write_bytes(make_subfolder(folder, f"seed-{seed}") / "model.safetensors", content)
    write_json(folder / "summary.json", summary)
    write_text(folder / "README.md", model_card(run))
    environment = {key: run.environment[key] for key in KEPT if key in run.environment} | {"saved": True}
    texts, frozen = texts_of(run.config), run.config.text.tuning == "frozen"
    encoder = None if texts is None else texts.folder
    named = replace(run.config.model, text_encoder=read_config(run.folder).model.text_encoder)
    config = without_places(replace(run.config, model=named))
    save_inputs(folder, config, environment, run.normalizer, encoder, with_encoder=frozen)
    return folder


def without_places(config: Config) -> Config:
    """The config with files and folders by their names alone: where they lay is nobody's business.

    Nor has it callbacks, which follow trainings: who predicts need not have their plug-ins.
    """
    pool, start, encoder = config.data.pool, config.protocol.init_from, config.model.text_encoder
    data = replace(config.data, path=PurePath(config.data.path).name, pool=pool and PurePath(pool).name)
    protocol = replace(config.protocol, init_from=start and PurePath(start).name)
    model = replace(config.model, text_encoder=encoder and PurePath(encoder).name)
    return replace(
        config, data=data, model=model, protocol=protocol, run=replace(config.run, out=RunConfig().out, callbacks=())
    )


def _without_places(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary without places, and without what people said."""
    summary = {key: value for key, value in summary.items() if key != "worst"}
    return summary | ({"init_from": PurePath(summary["init_from"]).name} if "init_from" in summary else {})


def model_card(run: Run) -> str:
    """What the model is, what it was trained on, its scores, and how to use it, as Markdown for the Hub."""
    config, summary = run.config, _without_places(run.summary)
    extra = "" if config.model.text_encoder is None else "[text]"
    facts = {
        "Model": f"{config.model.name}, {summary['parameters']:,} trainable parameters",
        "Protocol": config.protocol.name,
        "Data": f"{dataset_of(summary)} (SHA-256 {summary['data_sha256']})",
        "Features per step": describe_dims(run.dims, texts_of(config)),
        "Target": describe_target(Target.of(config.target)),
        "Label ratio": f"{summary['label_ratio']:g}",
        **missing_lines(summary["missing"]),
        "Seeds": f"{', '.join(map(str, run.seeds))}; predictions are their mean",
        "Needs": f"gmsa{extra} {gmsa.__version__}" + "".join(f", plug-in {name}" for name in run.config.plugins),
    }
    what = "the class" if config.target.is_classes else "the intensity"
    *others, last = run.dims
    modalities = f"{', '.join(others)} and {last}" if others else last
    note = f"> **{SYNTHETIC_NOTE}**\n\n" if run.synthetic else ""
    plugins = f", plugins={list(config.plugins)!r}" if config.plugins else ""
    return (
        "---\nlibrary_name: gmsa\ntags:\n- multimodal-sentiment-analysis\n- graph-neural-network\n---\n\n"
        f"# {escape_markdown(summary['name'])}\n\n{note}"
        f"Predicts {what} of utterances from their {escape_markdown(modalities)} features. Trained with "
        "gmsa, a library of graph networks for multimodal sentiment.\n\n"
        + "".join(f"- {key}: {escape_markdown(value)}\n" for key, value in facts.items())
        + f"\n## Scores\n\nMean ± standard deviation over seeds.\n\n{markdown_table([summary])}\n"
        "## Use\n\n```python\nimport gmsa\n\n"
        f'run = gmsa.load("path/to/this/folder"{plugins})\n'
        'answers = run.predict("clips.pkl")  # features as those of the training data\n'
        'answers.to_csv("answers.csv")\n```\n'
    )
