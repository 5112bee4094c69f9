"""Configurations of a bundle: laid over each other, changed by name, written for a run folder."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from medssl.errors import ConfigError
from medssl.workflows.models import read_config


def overlaid(config: Path, overlays: Iterable[Path]) -> ConfigParser:
    """Read a configuration and lay others over it, as ``monai.bundle run`` does with a list of files."""
    parser = read_config(config, {})
    for overlay in overlays:
        for name, value in yaml.safe_load(overlay.read_text(encoding="utf-8")).items():
            parser[name] = value
    return parser


def changed(parser: ConfigParser, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with some values changed.

    Raises:
        ConfigError: A value is set that the configuration does not have.
    """
    for name in values:
        if not _may_be_set(parser, name):
            known = [str(key) for key in parser.config]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(known)}."
            msg = f"The configuration has no value '{name}'.{hint}"
            raise ConfigError(msg)
        parser[name] = values[name]
    config = dict(parser.config)
    config.pop("_meta_", None)
    return config


def _may_be_set(parser: ConfigParser, name: str) -> bool:
    """Tell whether a configuration has a value, or a component that may take it as an argument."""
    parent = name.rpartition("#")[0]
    above = parser[parent] if parent and parent in parser else None
    return name in parser or (isinstance(above, Mapping) and "_target_" in above)


def one_line(value: object) -> str:
    """Return a value as YAML on one line, for a command."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()


def as_yaml(config: Mapping[str, Any], headline: str) -> str:
    """Return a configuration as YAML under a headline."""
    return f"# {headline} Written by medssl.\n" + yaml.safe_dump(dict(config), sort_keys=False, width=110)
