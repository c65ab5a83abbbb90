"""Reads YAML files safely and strictly, with errors of one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gmsa.errors import ConfigError


class StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"duplicate key '{key}' (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Reads a YAML file.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
