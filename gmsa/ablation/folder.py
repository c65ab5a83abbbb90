"""A finished comparison, opened from its folder."""

from __future__ import annotations

import os
from typing import Any

from gmsa.errors import RunError, cut
from gmsa.reports.ablation import correct_p_values, markdown_rows
from gmsa.system.files import read_summary
from gmsa.system.reading import expanded


class Table:
    """A comparison of settings: a row each, ranked on validation.

    Args:
        folder: folder of a finished comparison.

    Raises:
        RunError: the folder holds no comparison, or is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = expanded(folder)
        self.summary: dict[str, Any] = read_summary(self.folder, ("rows", "chosen"), "a comparison")
        """The content of ``summary.json``."""
        try:
            correct_p_values(self.summary["rows"])  # an earlier gmsa did not
            _ = self.to_markdown(), self.complete, len(self)
        except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
            file = self.folder / "summary.json"
            raise RunError(f"'{file}' is damaged ({type(error).__name__}: {cut(error)}); compare again") from None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row per setting, best first; then those that failed, and those that were not run."""
        return list(self.summary["rows"])

    @property
    def chosen(self) -> str | None:
        """Name of the setting that is best on validation; None where none was trained to its end."""
        name = self.summary["chosen"]
        return None if name is None else str(name)

    @property
    def complete(self) -> bool:
        """Whether every setting was trained with every seed."""
        return not any(row["failed"] or row.get("not_run") for row in self.rows)

    def to_markdown(self) -> str:
        """The table in Markdown, with what its columns mean."""
        return markdown_rows(self.summary)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_markdown_(self) -> str:
        return self.to_markdown()
