"""Secure aggregation in the config: what cannot be masked is refused with a remedy."""

import pytest

from fed_fsad.config import parse_config
from fed_fsad.config.secure import SecureSettings
from fed_fsad.errors import ConfigError
from tests.secagg.hospitals import config_of

SITES = ["a", "b", "c", "d"]


@pytest.mark.parametrize(("written", "read"), [("on", "on"), ("off", "off"), ("true", "on"), ("'off'", "off")])
def test_on_and_off_are_read_as_yaml_writes_them(written: str, read: str) -> None:
    assert config_of(SITES, f"privacy.secure_aggregation={written}").privacy.secure_aggregation == read


@pytest.mark.parametrize("written", ["maybe", "1", "null"])
def test_other_words_are_refused(written: str) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.secure_aggregation"):
        config_of(SITES, f"privacy.secure_aggregation={written}")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("federation.strategy.name=krum",), "leaves the server the mean alone; set federation.strategy.name"),
        (("federation.strategy.name=fedmedian",), "leaves the server the mean alone"),
        (("federation.weighting=size",), "set federation.weighting: equal"),
        (("federation.late=use",), "set federation.late: drop"),
        (("federation.participants=2",), "needs 3 hospitals that train in a round and finds 2"),
        (("privacy.secure.smallest=5",), "needs 5 hospitals that train in a round and finds 4"),
        (("privacy.secure.target_range=1073741824",), "lower privacy.secure.target_range to 1073741823"),
        (("privacy.mode=hospital", "privacy.hospital={epsilon: 8, clipping: adaptive}"), "clipping: fixed"),
        (("privacy.secure.smallest=2",), "privacy.secure.smallest"),
        (("privacy.secure.reconstruct=0.5",), "privacy.secure.reconstruct"),
        (("privacy.secure.clip_norm=0",), "privacy.secure.clip_norm"),
    ],
)
def test_what_cannot_be_masked_is_one_sentence_with_a_remedy(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(SITES, *overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_it_none_of_this_is_refused() -> None:
    config = config_of(SITES, "privacy.secure_aggregation=off", "federation.strategy.name=krum", "federation.late=use")
    assert parse_config(config.model_dump_json(), "again.yaml").federation.late == "use"


@pytest.mark.parametrize(("sites", "threshold"), [(3, 2), (4, 3), (5, 3), (6, 4), (10, 6), (16, 10)])
def test_the_threshold_is_more_than_half_and_the_share_that_is_asked_for(sites: int, threshold: int) -> None:
    assert SecureSettings().threshold(sites) == threshold
    assert SecureSettings(reconstruct=1).threshold(sites) == sites
    assert 2 * SecureSettings(reconstruct=0.51).threshold(sites) > sites
