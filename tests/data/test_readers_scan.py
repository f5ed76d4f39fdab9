"""Data sets of medical files: which images they become, under which label, id and patient."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fed_fsad.data import parallel
from fed_fsad.data.episodes import EpisodeSpec
from fed_fsad.data.features import FeatureCache
from fed_fsad.data.scan import Scan, forget_scans, scan
from fed_fsad.data.settings import FolderData, Reading, Tiles
from fed_fsad.errors import DataError, PolicyRefusal
from fed_fsad.privacy.records import partition_records
from tests.conftest import write_image
from tests.data.files import GREY12, RNG, dicom, nifti, slide

SECRETS = (b"Doe", b"Jane", b"MRN-", b"20200102")


def scanned(root: Path, **settings: Any) -> Scan:
    forget_scans()
    reading = {key: settings.pop(key) for key in list(settings) if key in Reading.model_fields}
    return scan(FolderData(kind="folder", root=root, task="ct", reading=Reading(**reading), **settings))


def grey(number: int) -> np.ndarray:
    return GREY12 + np.uint16(number)


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    """Six DICOM files of three patients, one file each without a suffix, and one that names nobody."""
    train = [("train/normal", "MRN-1"), ("train/normal", "MRN-2"), ("train/ill", "MRN-2"), ("train/ill", "")]
    for number, (folder, patient) in enumerate([*train, ("test/normal", "MRN-3"), ("test/ill", "MRN-3")]):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        dicom(tmp_path / folder / f"1.2.840.{number}", grey(number), bits=16, PatientID=patient)
    (tmp_path / "train/normal/README").write_text("no image")
    return tmp_path


def test_patients_of_headers_are_hashed_and_nothing_else_is_kept(headers: Path) -> None:
    found = scanned(headers)
    patients = {sample.source.name: sample.patient for sample in (*found.train, *found.test)}
    assert len(patients) == 6
    assert found.skipped == ()
    assert patients["train/ill/1.2.840.2"] == patients["train/normal/1.2.840.1"]
    assert patients["train/ill/1.2.840.3"] is None
    assert len(set(patients.values())) == 4
    kept = pickle.dumps(found)
    assert not [secret for secret in SECRETS if secret in kept]
    dicom(headers / "train/normal/1.2.840.9", grey(9), bits=16, PatientID="MRN-1")
    other = {sample.source.name: sample.patient for sample in scanned(headers).train}
    assert other["train/normal/1.2.840.9"] == other["train/normal/1.2.840.0"]
    assert other["train/normal/1.2.840.0"] != patients["train/normal/1.2.840.0"]  # the salt is the set's own content


def test_one_patient_id_in_both_splits_may_be_a_placeholder(headers: Path) -> None:
    dicom(headers / "test/normal/1.2.840.9", grey(9), bits=16, PatientID="MRN-1")
    with pytest.raises(
        DataError, match=r"one patient is in train and test: .*; keep all .* or set reading\.patients: un"
    ):
        scanned(headers)
    found = scanned(headers, patients="unknown")
    assert {sample.patient for sample in (*found.train, *found.test)} == {None}


def test_a_manifest_knows_patients_better_than_headers(headers: Path) -> None:
    lines = [f"{path.relative_to(headers)},train,{path.parent.name},p" for path in sorted(headers.glob("train/*/1*"))]
    (headers / "m.csv").write_text("\n".join(["path,split,label,patient", *lines[:-1], lines[-1][:-1]]))
    found = scanned(headers, manifest=Path("m.csv"))
    assert len({sample.patient for sample in found.train}) == 2  # the last line leaves the header its say


VOLUME = RNG.integers(0, 2000, (10, 12, 9)).astype(np.int16)


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Two volumes; the ill one with a mask that marks slices 3 and 4, and three empty slices."""
    ill, marked = VOLUME.copy(), np.zeros(VOLUME.shape, np.uint8)
    ill[:, :, :3], marked[5, 5, 3:5] = 0, 1
    for folder, values in (("train/normal", VOLUME + 1), ("train/ill", ill), ("masks/train/ill", marked)):
        (tmp_path / folder).mkdir(parents=True)
        nifti(tmp_path / folder / "v.nii.gz", values)
    return tmp_path


def test_slices_are_labelled_by_their_mask(volumes: Path) -> None:
    found = scanned(volumes, slices="all").train
    assert len(found) == 6 + 9
    ill = {sample.source.name for sample in found if sample.categories == ("ill",)}
    assert ill == {"train/ill/v.nii.gz#axial-003", "train/ill/v.nii.gz#axial-004"}
    masks = {sample.source.name: sample.source.mask(12) for sample in found}
    assert {name for name, mask in masks.items() if mask is not None and mask.any()} == ill
    owners = {sample.patient for sample in found}
    assert len(owners) == 2
    assert len({sample.id for sample in found}) == len(found)
    with pytest.raises(
        DataError, match=r"no image of 'ill' in train is marked, e\.g\. in train/ill/v\.nii\.gz; choose"
    ):
        scanned(volumes, slices="5-8")
    with pytest.raises(
        DataError, match=r"no image of 'ill' in train can be read, .*none of its slices.*shows anything"
    ):
        scanned(volumes, slices="0-2")


def test_a_file_is_no_patient_to_a_policy(volumes: Path) -> None:
    found = scanned(volumes, slices="all").train
    spec = EpisodeSpec(0, False, 1)
    assert len(partition_records(found, spec, 0, "image")) == 2  # all slices of a volume are one record
    with pytest.raises(PolicyRefusal, match="no patient id"):
        partition_records(found, spec, 0, "patient")


def test_a_manifest_may_name_slices(volumes: Path) -> None:
    rows = [
        "path,split,label,part",
        "train/ill/v.nii.gz,train,ill,coronal-004",
        "train/ill/v.nii.gz,test,normal,axial-008",
    ]
    (volumes / "m.csv").write_text("\n".join([*rows, "train/normal/v.nii.gz,train,normal,axial-001"]))
    with pytest.raises(
        DataError, match=r"one file is in train and test: .*#coronal-004 and .*#axial-008; keep .* split$"
    ):
        scanned(volumes, manifest=Path("m.csv"))
    (volumes / "m.csv").write_text((volumes / "m.csv").read_text().replace("test", "train"))
    found = scanned(volumes, manifest=Path("m.csv"))
    assert [sample.source.name.partition("#")[2] for sample in found.train] == ["axial-008", "coronal-004", "axial-001"]


def test_copies_of_a_volume_are_listed_once(volumes: Path) -> None:
    (volumes / "train/normal/w.nii.gz").write_bytes((volumes / "train/normal/v.nii.gz").read_bytes())
    found = scanned(volumes, slices="all")
    assert [(item.name, item.reason) for item in found.skipped] == [
        ("train/normal/w.nii.gz", "same image as train/normal/v.nii.gz#axial-000")
    ]


def test_tiles_are_labelled_by_their_mask(tmp_path: Path) -> None:
    picture, marked = RNG.integers(60, 200, (64, 96, 3), dtype=np.uint8), np.zeros((64, 96), np.uint8)
    marked[40, 70] = 1
    for folder, values in (("train/tumour", picture), ("masks/train/tumour", marked)):
        (tmp_path / folder).mkdir(parents=True)
        slide(tmp_path / folder / "s.tif", values)
    found = scanned(tmp_path, tiles=Tiles(side=32)).train
    assert len(found) == 6
    assert [sample.source.name for sample in found if sample.categories] == ["train/tumour/s.tif#tile-0-32-32-64"]


def test_what_changes_pixels_is_part_of_the_key_and_of_nothing_else(volumes: Path) -> None:
    looks = [{}, {"fit": "letterbox"}, {"window": "percentile"}, {"patients": "unknown"}]
    sets = [scanned(volumes, slices="all", **look).train for look in looks]
    assert len({tuple(sample.id for sample in samples) for samples in sets}) == 1
    assert [sets[0][0].look == samples[0].look for samples in sets] == [True, False, False, True]
    cache, reads = FeatureCache(1 << 30), []

    def encode(images: Tensor) -> Mapping[str, Tensor]:
        reads.append(images)
        return {"mean": images.mean((1, 2, 3))}

    for samples in sets:
        cache.rows("net", encode, 16, samples)
    assert len(reads) == 3 * len(sets[0])
    apart = cache.rows("net", encode, 16, [samples[0] for samples in sets]).features["mean"]
    assert torch.unique(apart).numel() == 2  # resized and boxed; both windows are the percentiles here


@pytest.mark.slow
def test_processes_find_what_one_finds(volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        nifti(volumes / f"train/normal/{number}.nii.gz", VOLUME + number + 2)
    seen: list[tuple[int, int]] = []
    forget_scans()
    data = FolderData(kind="folder", root=volumes, task="ct", reading=Reading(slices="every 4"))
    alone = scan(data, lambda *at: seen.append(at))
    assert seen == [(done, 8) for done in range(1, 9)]
    here = FeatureCache(1 << 30).rows("net", _bare, 16, alone.train)
    monkeypatch.setattr(parallel, "PATIENCE", 0.0)
    monkeypatch.setattr(parallel, "PAYS", 0.0)
    forget_scans()
    assert scan(data) == alone
    there = FeatureCache(1 << 30).rows("net", _bare, 16, alone.train)
    assert torch.equal(here.features["bare"], there.features["bare"])


def _bare(images: Tensor) -> Mapping[str, Tensor]:
    return {"bare": images}


def test_broken_medical_files_are_skipped_and_listed(headers: Path) -> None:
    whole = (headers / "train/normal/1.2.840.0").read_bytes()
    (headers / "train/normal/cut.dcm").write_bytes(whole[:-50])
    (headers / "train/normal/text.nii.gz").write_text("no volume")
    write_image(headers / "train/normal/misnamed.png", 1)
    (headers / "train/normal/misnamed.png").rename(headers / "train/normal/misnamed.dcm")
    reasons = {item.name.rpartition("/")[2]: item.reason for item in scanned(headers).skipped}
    assert set(reasons) == {"cut.dcm", "text.nii.gz", "misnamed.dcm"}
    assert "holds fewer" in reasons["cut.dcm"]
    assert all("not what its name says" in reasons[name] for name in ("text.nii.gz", "misnamed.dcm"))
