"""SD-MAD: sign-driven few-shot multi-anomaly detection with a frozen vision-language model."""

from fed_fsad.methods.sdmad.detector import build
from fed_fsad.methods.sdmad.settings import Settings

__all__ = ["Settings", "build"]
