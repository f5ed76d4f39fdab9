"""Settings of the few-shot evaluation that the server runs."""

from pydantic import Field

from fed_fsad.data.settings import Settings


class EvaluationSettings(Settings):
    """What is tested, on how many shots, how often."""

    every: int = Field(1, ge=1, description="evaluate after every n-th round, and after the last")
    shots: tuple[int, ...] = Field((2, 4, 8), min_length=1, description="K: support images per class")
    draws: int = Field(3, ge=1, description="support sets drawn per K; the mean is reported")
    operating_specificity: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="share of normal images the report's threshold should let pass; no test image sets it",
    )
    each_draw: bool = Field(False, description="also keep every draw's figures, at every K; `fed-fsad benchmark` does")
    unseen_task: str | None = Field(None, description="an organ no hospital holds: where detection is tested")
    unseen_categories: tuple[str, ...] = Field((), description="anomaly categories no hospital holds")
