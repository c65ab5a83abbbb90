"""What the tests of this folder need."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def unrendered(rendered: None) -> None:
    """Figures are rendered here: they are what is tested."""
