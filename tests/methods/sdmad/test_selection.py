import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fed_fsad.methods.sdmad.selection import kept_signs, mean_scores, reliability, sample_scores, sign_shares
from tests.reference.sdmad import auroc, kept, sample_score

MEMBER = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1]]).bool()
LABELS = torch.tensor([[0, 0], [0, 0], [1, 0], [1, 1], [0, 1]]).bool()


def draw(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, MEMBER.shape[1], generator=torch.Generator().manual_seed(seed)).round(decimals=1)


def test_reliability_is_the_auroc_of_each_sign_on_the_supports() -> None:
    z = draw(5)
    found = reliability(z, LABELS, MEMBER)
    targets = [~LABELS.any(dim=1), LABELS[:, 0], LABELS[:, 1]]
    for row, target in enumerate(targets):
        for sign in range(6):
            if MEMBER[row, sign]:
                expected = roc_auc_score(target.numpy(), z[:, sign].numpy())
                assert found[row, sign].item() == pytest.approx(expected)
                assert expected == pytest.approx(auroc(z[target, sign].tolist(), z[~target, sign].tolist()))
            else:
                assert math.isnan(found[row, sign])


def test_a_category_without_supports_keeps_all_its_signs() -> None:
    labels = LABELS.clone()
    labels[:, 1] = False
    found = reliability(draw(5), labels, MEMBER)
    assert found[2].isnan().all()
    chosen = kept_signs(found, MEMBER, 0.1)
    assert torch.equal(chosen[2], MEMBER[2])
    assert chosen.sum(dim=1).tolist() == [1, 1, 2]


def test_no_supports_at_all_keep_everything() -> None:
    found = reliability(torch.zeros(0, 6), torch.zeros(0, 2, dtype=torch.bool), MEMBER)
    assert torch.equal(kept_signs(found, MEMBER, 0.5), MEMBER)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=10),
    st.sampled_from([0.1, 0.6, 0.7, 1.0]),
)
def test_the_most_reliable_stay_and_ties_go_to_the_lower_index(values: list[float], share: float) -> None:
    member = torch.ones(1, len(values), dtype=torch.bool)
    chosen = kept_signs(torch.tensor([values]), member, share)[0].nonzero().squeeze(1).tolist()
    assert chosen == kept(values, share)
    assert chosen


def test_sample_scores_average_the_signs_that_fire_most() -> None:
    z = draw(4, seed=2)
    found = sample_scores(z, MEMBER)
    for image in range(4):
        for category in (1, 2):
            own, normal = z[image, MEMBER[category]].tolist(), z[image, MEMBER[0]].tolist()
            assert found[image, category - 1].item() == pytest.approx(sample_score(own, normal), abs=1e-6)


def test_mean_scores_by_hand() -> None:
    z = torch.tensor([[1.0, 3.0, 6.0, 0.0, 3.0, 5.0]])
    assert mean_scores(z, MEMBER).tolist() == [[3.0 - 2.0, 4.0 - 2.0]]


@pytest.mark.parametrize("sample", [False, True])
def test_the_shares_of_the_signs_average_to_the_score(sample: bool) -> None:
    z = draw(5, seed=3)
    shares = sign_shares(z, MEMBER, sample)
    found = sample_scores(z, MEMBER) if sample else mean_scores(z, MEMBER)
    assert torch.allclose(shares.nanmean(dim=2), found, atol=1e-6)
    assert shares[:, ~MEMBER[1:]].isnan().all()
    counted = (~shares.isnan()).sum(dim=2)
    assert (counted == torch.tensor([sample_count(row, sample) for row in MEMBER[1:]])).all()


def sample_count(row: torch.Tensor, sample: bool) -> int:
    return math.ceil(int(row.sum()) / 2) if sample else int(row.sum())
