"""`data check`: each fault is planted once and must be found, with its severity; a clean set has none."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import imagehash
import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from fed_fsad.data.check import Finding, check
from fed_fsad.data.check.copies import NEAR, near_pairs
from fed_fsad.data.check.header import identifies
from fed_fsad.data.phantoms import phantom
from fed_fsad.data.scan import scan
from fed_fsad.data.settings import FolderData, Reading
from fed_fsad.errors import DataError
from tests.conftest import write_image, write_set

COUNTS = {"train/normal": 12, "train/glioma": 12, "test/normal": 11, "test/glioma": 11}


def clean(root: Path) -> Path:
    """A set with nothing to complain about: random images, all different, enough of each class."""
    seed = 0
    for folder, count in COUNTS.items():
        for i in range(count):
            seed += 1
            write_image(root / folder / f"{i:03}.png", seed, (64, 64))
    return root


def found(*roots: Path, manifest: str | None = None, normal: tuple[str, ...] = ("normal",)) -> list[Finding]:
    name = None if manifest is None else Path(manifest)
    sites = [FolderData(kind="folder", root=root, manifest=name, normal=normal) for root in roots]
    return list(check(sites, lambda what, done, of: None).findings)


def worst(findings: list[Finding]) -> set[tuple[str, str]]:
    """(severity, code) of all but notes."""
    return {(finding.severity, finding.code) for finding in findings if finding.severity != "note"}


def test_a_clean_set_has_notes_only(tmp_path: Path) -> None:
    findings = found(clean(tmp_path))
    assert worst(findings) == set()
    assert {finding.code for finding in findings} == {"found", "sizes", "no-patients"}
    assert "train 24 images (12 normal, 12 glioma); test 22 images" in findings[0].message


def copy(source: str, target: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        shutil.copy(root / source, root / target)

    return plant


def save(target: str, values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / target)

    return plant


def broken(name: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / name).write_text("no image")

    return plant


def broken_class(root: Path) -> None:
    for path in (root / "test/glioma").iterdir():
        path.write_text("no image")


def half_as_large(source: str, target: str) -> Callable[[Path], None]:
    """A copy that only the eye recognises: another size, another format. The original is a picture, not noise."""

    def plant(root: Path) -> None:
        drawn = phantom("oct", (), 0, 7, 0).source.image(160)
        picture = Image.fromarray((drawn.transpose(1, 2, 0) * 255).astype(np.uint8))
        picture.save(root / source)
        picture.resize((80, 80)).save(root / target, quality=70)

    return plant


def fewer(root: Path) -> None:
    for i in range(4, 11):
        (root / f"test/glioma/{i:03}.png").unlink()


def no_test(root: Path) -> None:
    shutil.rmtree(root / "test")


ANY = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
PLANTED: list[tuple[Callable[[Path], None], str, str, str]] = [
    (broken("train/normal/001.png"), "warning", "unreadable", r"damaged or no PNG.*: 1, e\.g\. train/normal/001\.png"),
    (broken_class, "error", "class-unreadable", r"can be read: 1, e\.g\. test glioma; restore"),
    (copy("train/normal/001.png", "train/normal/x.png"), "warning", "copies", r"= train/normal/x\.png; remove"),
    (copy("train/normal/001.png", "test/normal/x.png"), "error", "copies-splits", r"= train/normal/001\.png; fed-"),
    (copy("train/normal/001.png", "train/glioma/x.png"), "error", "copies-labels", "images under different labels: 1"),
    (half_as_large("train/normal/a.png", "test/normal/b.jpg"), "warning", "alike", r"b\.jpg ~ train/normal/a\.png"),
    (fewer, "warning", "few", r"fewer than 10 images .*: 1, e\.g\. 4 test glioma; add images"),
    (no_test, "warning", "no-test", "there is no test image; fed-fsad data split makes one"),
    (save("train/normal/x.png", ANY * 0 + 9), "warning", "flat", "show one value only: 1"),
    (save("train/normal/x.png", ANY[:20]), "warning", "small", "side of less than 64 pixels: 1"),
    (save("masks/train/glioma/000.png", ANY * 0), "warning", "empty-mask", "marks nothing: 1"),
    (save("masks/train/glioma/000.png", ANY[:32]), "error", "mask", "is 64 x 32 pixels but its image .*give every"),
    (save("masks/train/normal/000.png", ANY), "error", "mask", "called normal but masks/train/normal/000.png marks"),
    (save("train/x.png", ANY), "error", "listing", r"lies in no class folder; move it into"),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "severity", "code", "said"), PLANTED, ids=[code for *_, code, _ in PLANTED])
def test_a_planted_fault_is_found(
    tmp_path: Path, plant: Callable[[Path], None], severity: str, code: str, said: str
) -> None:
    plant(clean(tmp_path))
    findings = found(tmp_path)
    (hit,) = [finding for finding in findings if finding.code == code]
    assert hit.severity == severity
    assert hit.line.startswith(severity)
    assert re.search(said, hit.line), hit.line
    others = worst(findings) - {(severity, code)}
    assert others <= {("warning", "few"), ("warning", "unreadable"), ("warning", "alike")}, others


@pytest.mark.parametrize(("plant", "severity"), [(p, s) for p, s, *_ in PLANTED], ids=[c for *_, c, _ in PLANTED])
def test_errors_are_what_stops_a_run_and_nothing_else(
    tmp_path: Path, plant: Callable[[Path], None], severity: str
) -> None:
    plant(clean(tmp_path))
    data = FolderData(kind="folder", root=tmp_path)
    assert check([data], lambda what, done, of: None).ok == (severity != "error")
    if severity == "error":
        with pytest.raises(DataError):
            scan(data)
    else:
        assert scan(data).train


def test_nothing_normal_names_the_classes(tmp_path: Path) -> None:
    findings = found(clean(tmp_path), normal=("healthy",))
    assert ("error", "no-normal") in worst(findings)
    assert "no image is normal: the classes are glioma, normal; name the normal class" in findings[0].line


def test_patients_in_both_splits(tmp_path: Path) -> None:
    clean(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.png"))]
    rows = [f"{n},{n.split('/')[0]},{n.split('/')[1]},{'p' if '000' in n else n}" for n in names]
    (tmp_path / "m.csv").write_text("path,split,label,patient\n" + "\n".join(rows))
    findings = found(tmp_path, manifest="m.csv")
    assert worst(findings) == {("error", "patients")}
    assert findings[0].files == ("train/glioma/000.png and test/glioma/000.png",)


def test_several_sites_are_compared(tmp_path: Path) -> None:
    one, two = clean(tmp_path / "one"), write_set(tmp_path / "two", {"train/normal": 0})
    for number, (folder, count) in enumerate(COUNTS.items()):
        for i in range(count):
            write_image(two / folder / f"{i:03}.png", 1000 * (number + 1) + i, (64, 64))
    assert worst(found(one, two)) == set()
    shutil.copy(one / "train/normal/000.png", two / "test/normal/x.png")
    half_as_large("train/normal/a.png", "train/normal/b.jpg")(one)
    shutil.move(one / "train/normal/b.jpg", two / "train/normal/b.jpg")
    findings = found(one, two)
    assert worst(findings) == {("error", "copies-sites"), ("warning", "alike")}
    hit = next(finding for finding in findings if finding.code == "copies-sites")
    assert hit.files == (f"{one}: train/normal/000.png = {two}: test/normal/x.png",)
    findings = found(one, tmp_path / "gone")
    assert ("error", "listing") in worst(findings)
    assert any(finding.code == "found" for finding in findings), "the other site is still looked at"


def write_dicom(path: Path, seed: int, slope: float = 1.0, **tags: str) -> None:
    values = np.random.default_rng(seed).integers(0, 4096, (64, 64), dtype=np.uint16)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(
        entropy_srcs=[str(seed)]
    )
    header.Rows, header.Columns, header.SamplesPerPixel = 64, 64, 1
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.PhotometricInterpretation, header.RescaleSlope, header.RescaleIntercept = "MONOCHROME2", slope, 0
    header.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(header, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)


def test_headers_that_name_somebody_and_windows_of_other_units(tmp_path: Path) -> None:
    clean(tmp_path)
    write_dicom(tmp_path / "train/normal/quiet.dcm", 1, PatientID="p1")
    assert not {"header", "uneven-windows"} & {finding.code for finding in found(tmp_path)}
    write_dicom(tmp_path / "train/normal/named.dcm", 2, PatientName="Doe^Jane")
    write_dicom(tmp_path / "train/normal/private.dcm", 3, slope=100.0)
    header = pydicom.dcmread(tmp_path / "train/normal/private.dcm")
    header.private_block(0x0011, "MAKER", create=True).add_new(0x01, "LO", "secret")
    header.save_as(tmp_path / "train/normal/private.dcm")
    findings = found(tmp_path)
    assert worst(findings) == {("warning", "header"), ("warning", "uneven-windows")}
    hit = next(finding for finding in findings if finding.code == "header")
    assert hit.files == ("train/normal/named.dcm", "train/normal/private.dcm")
    assert not any(word in str(findings) for word in ("Jane", "secret", "p1"))
    uneven = next(finding for finding in findings if finding.code == "uneven-windows")
    assert uneven.files == ("train/normal/named.dcm", "train/normal/quiet.dcm")


def test_a_header_that_cannot_be_read_whole_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dicom(tmp_path / "a.dcm", 1)
    assert not identifies(tmp_path / "a.dcm")

    def fail(*_: object, **__: object) -> None:
        raise ValueError("odd bytes")

    monkeypatch.setattr(pydicom, "dcmread", fail)
    assert identifies(tmp_path / "a.dcm")


def test_a_patient_of_dicom_headers_in_both_splits(tmp_path: Path) -> None:
    clean(tmp_path)
    write_dicom(tmp_path / "train/normal/a.dcm", 1, PatientID="p1")
    write_dicom(tmp_path / "test/normal/b.dcm", 2, PatientID="p1")
    hit = next(finding for finding in found(tmp_path) if finding.severity == "error")
    assert (hit.code, hit.files) == ("patients", ("train/normal/a.dcm and test/normal/b.dcm",))


def test_slices_that_a_mask_does_not_touch_are_normal(tmp_path: Path) -> None:
    """Of six slices two are marked; the others must not count as lesions without a mark."""
    values = np.random.default_rng(5).integers(0, 900, (64, 64, 6)).astype(np.int16)
    marks = np.zeros((64, 64, 6), np.uint8)
    marks[10:20, 10:20, 2:4] = 1
    for folder, array in (("train", values), ("masks/train", marks)):
        (tmp_path / folder / "lesion").mkdir(parents=True)
        volume = nibabel.Nifti1Image(array, np.eye(4))  # type: ignore[no-untyped-call]
        nibabel.save(volume, tmp_path / folder / "lesion" / "p.nii.gz")
    data = FolderData(kind="folder", root=tmp_path, reading=Reading(slices="all"))
    findings = check([data], lambda what, done, of: None).findings
    assert {finding.code for finding in findings if finding.severity == "error"} == set()
    (few,) = [finding for finding in findings if finding.code == "few"]
    assert few.files == ("4 train normal", "2 train lesion")
    assert not {"empty-mask", "no-normal", "alike"} & {finding.code for finding in findings}


def test_a_patient_of_dicom_headers_at_two_sites(tmp_path: Path) -> None:
    for number, site in enumerate(("one", "two")):
        write_dicom(tmp_path / site / "train/normal/a.dcm", number, PatientID="p1")
    findings = found(tmp_path / "one", tmp_path / "two")
    (hit,) = [finding for finding in findings if finding.code == "patients-sites"]
    assert hit.files == (f"{tmp_path}/one: train/normal/a.dcm = {tmp_path}/two: train/normal/a.dcm",)
    assert hit.severity == "warning"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_near_pairs_are_those_of_a_slow_count(number: int, seed: int) -> None:
    """Against imagehash's own distance, on random hashes and slightly changed copies of them."""
    rng = np.random.default_rng(seed)
    bits = rng.random((number, 256)) < 0.5
    for i in range(1, number, 2):
        bits[i] = bits[i - 1] ^ (rng.random(256) < 0.05)
    slow = [
        (i, j)
        for i in range(number)
        for j in range(i + 1, number)
        if imagehash.ImageHash(bits[i].reshape(16, 16)) - imagehash.ImageHash(bits[j].reshape(16, 16)) <= NEAR
    ]
    assert sorted(near_pairs([np.packbits(row).tobytes() for row in bits], lambda done, of: None)) == slow


def test_near_pairs_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fed_fsad.data.check.copies.BLOCK", 3)
    hashes = [bytes([value] * 32) for value in (0, 85, 0, 255, 170, 85, 0)]
    assert sorted(near_pairs(hashes, lambda done, of: None)) == [(0, 2), (0, 6), (1, 5), (2, 6)]
