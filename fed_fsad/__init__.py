"""Federated few-shot medical anomaly detection: D²4FAD and SD-MAD, trained together by hospitals on Flower."""

__version__ = "0.1.0"
