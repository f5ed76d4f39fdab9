"""Every setting, typed: YAML in, one clear sentence out when something is wrong."""

from fed_fsad.config.loading import load_config, load_mapping, parse_config, resolved_yaml
from fed_fsad.config.schema import Config, Federation, Hospital

__all__ = ["Config", "Federation", "Hospital", "load_config", "load_mapping", "parse_config", "resolved_yaml"]
