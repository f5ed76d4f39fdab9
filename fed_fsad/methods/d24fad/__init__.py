"""D²4FAD: dual distillation for few-shot anomaly detection (Dong et al., ICLR 2026)."""

from fed_fsad.methods.d24fad.detector import build
from fed_fsad.methods.d24fad.losses import concern
from fed_fsad.methods.d24fad.settings import Settings

NORMALISATION = ("affine",)

__all__ = ["NORMALISATION", "Settings", "build", "concern"]
