"""Thresholds and warnings from leave-one-out scores, against scipy and against what they promise."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from fed_fsad.errors import DataError
from fed_fsad.methods.method import SupportBank
from fed_fsad.methods.threshold import conformal, misfits, threshold, warnings
from tests.evaluation.fakes import KnownScores


def test_few_supports_give_the_prediction_bound() -> None:
    scores = [1.0, 2.0, 4.0, 3.0]
    found = threshold(torch.tensor(scores), 0.9)
    low, high = stats.t.interval(0.8, 3, loc=np.mean(scores), scale=np.std(scores, ddof=1) * np.sqrt(1 + 1 / 4))
    assert found.value == pytest.approx(high)
    assert low < min(scores)
    assert (found.rule, found.supports, found.specificity) == ("t_bound", 4, 0.9)


def test_enough_supports_give_a_quantile_of_their_own() -> None:
    scores = torch.arange(9.0)
    assert threshold(scores, 0.9).rule == "conformal"
    assert threshold(scores, 0.9).value == 8
    assert threshold(scores, 0.8).value == 7
    assert threshold(scores[:8], 0.9).rule == "t_bound"


@pytest.mark.parametrize(("count", "share"), [(3, 0.9), (5, 0.8), (20, 0.9)])
def test_the_promised_share_of_new_normals_stays_below(count: int, share: float) -> None:
    draws = np.random.default_rng(0).normal(size=(2000, count + 1))
    below = [row[-1] <= threshold(torch.from_numpy(row[:-1]), share).value for row in draws]
    assert np.mean(below) >= share - 0.03


def test_a_single_support_gives_no_threshold() -> None:
    with pytest.raises(DataError, match="at least 2 normal support images"):
        threshold(torch.tensor([1.0]), 0.9)


def test_a_conformal_bound_says_what_it_guarantees() -> None:
    assert conformal([3.0, 1.0, 2.0], 0.5) == (2.0, 0.5)
    assert conformal([3.0, 1.0, 2.0], 0.99) == (3.0, 0.75)


def test_one_stranger_is_found_and_clean_sets_are_rarely_accused() -> None:
    draws = np.random.default_rng(1).normal(size=(1000, 6))
    accused = sum(bool(misfits(torch.from_numpy(row))) for row in draws)
    assert 10 < accused < 70
    assert misfits(torch.tensor([1.0, 1.1, 0.9, 3.0, 1.05])) == (3,)
    assert misfits(torch.tensor([1.0, 1.1, 0.9, 1.05, 0.1])) == ()
    assert misfits(torch.tensor([1.0, 9.0])) == ()


class Own(KnownScores):
    """A detector whose supports' own scores are known."""

    def __init__(self, scores: Tensor | None) -> None:
        super().__init__()
        self._own = scores

    def support_scores(self, bank: SupportBank) -> Tensor | None:
        return self._own


def test_a_warning_names_the_file_of_the_stranger() -> None:
    bank = SupportBank("brain", tuple("abcde"), ((),) * 5, {})
    names = [f"{name}.png" for name in "abcde"]
    (sentence,) = warnings(Own(torch.tensor([1.0, 1.1, 0.9, 3.0, 1.05])), bank, names)
    assert "d.png is unlike the other 4" in sentence
    assert warnings(Own(torch.tensor([1.0, 1.1, 0.9, 1.2, 1.05])), bank, names) == ()
    assert warnings(Own(None), bank, names) == ()
