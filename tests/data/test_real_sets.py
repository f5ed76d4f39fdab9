"""The real sets, where they lie: every image is read, by folder and by manifest alike."""

from pathlib import Path

import pytest

from fed_fsad.data.build import hospital_samples, server_samples
from fed_fsad.data.scan import scan
from fed_fsad.data.settings import FolderData, FolderHolding, Holding

COUNTS = {"brain_mri": (1200, 600), "chest_xray": (678, 321), "lung_histology": (600, 360), "retina": (405, 102)}
CLASSES = {"brain_mri": 3, "chest_xray": 1, "lung_histology": 2, "retina": 4}


@pytest.mark.real_data
@pytest.mark.parametrize("name", COUNTS)
def test_folders_and_manifest_agree(shared: Path, name: str) -> None:
    root = shared / name
    by_folder = scan(FolderData(kind="folder", root=root, task=name))
    by_manifest = scan(FolderData(kind="folder", root=root, manifest=Path("manifest.csv"), task=name))
    assert (len(by_folder.train), len(by_folder.test)) == COUNTS[name]
    for one, other in ((by_folder.train, by_manifest.train), (by_folder.test, by_manifest.test)):
        assert [(s.id, s.categories) for s in one] == [(s.id, s.categories) for s in other]
    assert by_folder.skipped == ()
    assert {item.reason for item in by_manifest.skipped} <= {"listed twice"}
    assert len({category for s in by_folder.test for category in s.categories}) == CLASSES[name]
    image = by_folder.test[0].source.image(64)
    assert image.shape == (3, 64, 64)
    assert 0 <= image.min() < image.max() <= 1


@pytest.mark.real_data
def test_patients_of_the_chest_set_stay_together(shared: Path) -> None:
    data = FolderData(kind="folder", root=shared / "chest_xray", manifest=Path("manifest.csv"), task="chest_xray")
    held: dict[str, Holding] = {site: FolderHolding(kind="folder") for site in "abcd"}
    pool, test = server_samples(data, held, 0, frozenset(), None)
    parties = [pool, test, *(hospital_samples(data, held, site, 0, frozenset(), None) for site in held)]
    patients = [{sample.patient for sample in own} for own in parties]
    assert None not in set.union(*patients)
    assert sum(map(len, patients)) == len(set.union(*patients))
    assert {sample.is_normal for sample in pool} == {True, False}
    assert all(120 < len(own) < 190 for own in parties[2:])
