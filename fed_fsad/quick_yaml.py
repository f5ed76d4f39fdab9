"""PyYAML's loader of plain values, the one in C where PyYAML was built with it: ten times as quick on long configs."""

from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from yaml import SafeLoader as Loader
else:
    Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

__all__ = ["Loader"]
