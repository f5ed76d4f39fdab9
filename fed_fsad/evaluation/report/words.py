"""How names and numbers read in the report."""

METHODS = {"d24fad": "D²4FAD", "sdmad": "SD-MAD"}
ARMS = {
    "federated": "Federated",
    "pooled": "All images in one place",
    "local": "Each site on its own, mean",
    "untrained": "Before training",
}
BASELINES = {
    "fused": "Fused frozen residuals",
    "knn": "kNN on frozen patch features",
    "knn_pooled": "kNN on frozen image features",
    "position_nn": "kNN at the same position",
    "published": "The published score, of the student as trained",
    "raw_pixels": "kNN on raw pixels",
    "zero_shot": "Zero-shot with signs",
    "zero_shot_names": "Zero-shot with class names",
    "linear_probe": "Linear probe on frozen features",
}
FIGURES = {
    "p1": "one against normal (P1)",
    "p2": "one against other anomalies (P2)",
    "p3": "multi-label (P3)",
    "binary": "abnormal against normal",
    "held_out": "held-out category",
}
EXTRA = {
    "map": "mean average precision (P3)",
    "macro_f1": "macro F1 at s > 0 (P3)",
    "micro_f1": "micro F1 at s > 0 (P3)",
    "hamming": "Hamming loss at s > 0 (P3), lower is better",
    "exact_match": "exact match at s > 0 (P3)",
}
GAP = "–"


def method_title(name: str) -> str:
    """A method as its paper writes it."""
    return METHODS.get(name, name)


def plain(name: str) -> str:
    """A key as words: "one_vs_normal" reads "one vs normal"."""
    return name.replace("_", " ")


def entry_title(key: str) -> str:
    """What a figure is of: an arm that was trained in some way, or a simple baseline."""
    return ARMS.get(key) or BASELINES.get(key) or plain(key)


def figure_title(key: str) -> str:
    """A key of image_auroc or the label of a curve: a number of shots, a protocol, or a category."""
    return f"K = {key}" if key.isdigit() else FIGURES.get(key) or plain(key)


def score(value: float | None) -> str:
    """A figure between 0 and 1, three decimals."""
    return GAP if value is None else f"{value:.3f}"


def interval(ends: tuple[float, float] | None, signed: bool = False) -> str:
    """The two ends of an interval."""
    if ends is None:
        return GAP
    return " to ".join(difference(end) if signed else score(end) for end in ends)


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return GAP if value is None else f"{100 * value:.1f}\u00a0%"


def difference(value: float) -> str:
    """A signed difference of two such figures, with a true minus sign."""
    return f"{value:+.3f}".replace("-", "−")


def epsilon(value: float | None) -> str:
    """A privacy loss, rounded up: what is printed is never less than what was spent."""
    return GAP if value is None else f"{-(-value * 100 // 1) / 100:.2f}"


def small(value: float | None) -> str:
    """A number such as δ, in as few digits as it needs."""
    return GAP if value is None else f"{value:.3g}".replace("e-0", "e-")


def data_size(count: float) -> str:
    """Bytes in decimal units: 1 MB = 1,000,000 bytes."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.1f}".removesuffix(".0") + f" {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def duration(seconds: float | None) -> str:
    """Wall time: "48 s", "3 min 20 s", "2 h 5 min"."""
    if seconds is None:
        return GAP
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def amount(count: int, one: str, many: str = "") -> str:
    """ "1 round", "8 rounds"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
