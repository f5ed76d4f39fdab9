"""A frozen model that answers NaN is noticed at the image it happens at."""

import math

import pytest
import torch
from torch import Tensor

from fed_fsad.data.features import FeatureCache
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.errors import DataError


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_name_their_image_and_are_not_kept(value: float) -> None:
    samples = phantom_set("oct", 3, 0, 0, 5)
    cache, calls = FeatureCache(1 << 20), 0

    def encode(image: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        return {"x": torch.tensor([[1.0, value if calls == 2 else 0.0]])}

    with pytest.raises(DataError, match=f"features of {samples[1].source.name} are not finite; look at that image"):
        cache.rows("model", encode, 32, samples)
    rows = cache.rows("model", encode, 32, samples)
    assert rows.features["x"].tolist() == [[1.0, 0.0]] * 3
    assert calls == 4
