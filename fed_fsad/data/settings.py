"""Settings of where images come from and how a simulated federation shares them out."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""What a run, a hospital or a site may be called."""

Role = Literal["train", "predict-only"]
"""predict-only: an external validation site, which never trains and sends figures only."""


SITE = "site"
COLUMNS = ("path", "split", "label", "categories", "patient", "mask", "part", SITE)
"""What a manifest may say of an image without further notice."""


class Settings(BaseModel):
    """Base of every group of settings: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PhantomData(Settings):
    """Images drawn by the phantom generator: six organs, with masks; reproducible from (seed, index)."""

    kind: Literal["phantoms"]
    pose_jitter: float = Field(1.0, ge=0, le=3, description="0 = every patient lies the same way, 1 = as in a clinic")
    lesion_contrast: float = Field(1.0, gt=0, le=2, description="below 1 lesions are fainter")
    multiple: float = Field(0.0, ge=0, le=1, description="share of abnormal images with two or three anomalies")
    test_normal: int = Field(48, ge=1, description="normal test images per organ, on the server")
    test_abnormal: int = Field(48, ge=1, description="abnormal test images per organ, shared by its categories")
    pool: int = Field(24, ge=1, description="images per organ and class to draw support sets from, on the server")
    organs: tuple[str, ...] | None = Field(
        None, min_length=1, description="organs the server tests on beside unseen_task; null = those of the hospitals"
    )


class Tiles(Settings):
    """How large TIFF images are cut: square tiles on a regular grid; what does not fill a tile is left out."""

    side: int = Field(256, ge=16, le=4096, description="pixels a side")
    stride: int | None = Field(None, ge=1, description="pixels from one tile to the next; null = side by side")
    tissue: float = Field(0.5, ge=0, le=1, description="least share of a tile that is neither nearly white nor black")
    level: int = Field(0, ge=0, description="level of a pyramid: 0 = full size")


class Reading(Settings):
    """How files become images: what is taken of files that hold several, and how values and shapes are shown."""

    fit: Literal["resize", "letterbox"] = Field(
        "resize", description="to a square by a plain resize, as the papers do, or in proportion with black borders"
    )
    window: Literal["file", "percentile"] = Field(
        "file", description="grey values shown: the file's own window where it has one, or the middle 99 %"
    )
    axis: Literal["axial", "coronal", "sagittal"] = Field("axial", description="along which NIfTI volumes are sliced")
    slices: str = Field(
        "middle", description="slices or frames of a file: `middle`, `all`, `every N`, or `A-B`, counted from 0"
    )
    tiles: Tiles | None = Field(None, description="cut every TIFF into tiles; null = one image per TIFF")
    patients: Literal["header", "unknown"] = Field(
        "header", description="DICOM files of one patient id stay together; `unknown` where the ids are placeholders"
    )

    @field_validator("slices")
    @classmethod
    def _known_slices(cls, value: str) -> str:
        if not re.fullmatch(r"middle|all|every [1-9]\d{0,5}|\d{1,6}-\d{1,6}", value):
            raise ValueError(f"slices {value!r} is unknown; write middle, all, every 5 (any number) or 40-80")
        return value

    @property
    def look(self) -> str:
        """What changes the pixels of an image that was chosen; part of the key under which features are kept."""
        return f"{self.fit} {self.window}"


LayoutName = Literal[
    "auto",
    "folders",
    "manifest",
    "mvtec",
    "bmad",
    "medianomaly",
    "brain_tumor_mri",
    "lag",
    "aptos2019",
    "idrid",
    "odir5k",
    "rfmid",
    "rsna",
    "chestxray14",
    "vindr_cxr",
    "oct2017",
    "lc25000",
]


class FolderData(Settings):
    """Images on disk: `{train,test}/{class}/*`, a CSV manifest `path,split,label,categories,patient,mask`, or a public
    data set as it is downloaded (`layout`).

    In folders, a mask lies in `masks/{split}/{class}/` under its image's name, as PNG or TIFF.
    """

    kind: Literal["folder"]
    root: Path = Field(description="folder that holds train/ and test/, the manifest's paths, or a public data set")
    layout: LayoutName = Field("auto", description="how the images lie; auto recognises it")
    manifest: Path | None = Field(None, description="CSV manifest, relative to root; without it the folders are read")
    columns: tuple[str, ...] = Field(
        (), description="columns of your own in the manifest, which partition.column can name"
    )
    task: str | None = Field(
        None, description="organ and modality, e.g. brain_mri; names the sign list; null = the layout's own"
    )
    normal: tuple[str, ...] = Field(("normal",), min_length=1, description="class names that mean: no anomaly")
    pool: int = Field(24, ge=1, description="train images per class kept by the server to draw support sets from")
    reading: Reading = Field(Reading(), description="how files become images")

    @field_validator("columns")
    @classmethod
    def _are_not_ours(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        if ours := [name for name in columns if name.lower() in COLUMNS]:
            raise ValueError(f"{ours[0]!r} is a column that every manifest may have; take it out")
        return columns


class CollectionData(Settings):
    """Several data sets on disk, a task each."""

    kind: Literal["collection"]
    tasks: dict[str, FolderData] = Field(
        min_length=1, description="data sets by task name; the keys of each are those of `kind: folder`"
    )
    pool: int = Field(24, ge=1, description="train images per task and class kept by the server for support sets")
    test_cap: int | None = Field(
        None, ge=1, description="test images per task and class, the same ones for every seed; null = all"
    )

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, raw: Any) -> Any:
        """A data set takes its task's name and the collection's pool."""
        if not isinstance(raw, dict) or not isinstance(raw.get("tasks"), dict):
            return raw
        common = {"kind": "folder", "pool": raw.get("pool", cls.model_fields["pool"].default)}
        tasks = {
            task: {**own, **common, "task": task} if isinstance(own, dict) else own
            for task, own in raw["tasks"].items()
        }
        return {**raw, "tasks": tasks}


DataSettings = Annotated[PhantomData | FolderData | CollectionData, Field(discriminator="kind")]


class PhantomHolding(Settings):
    """What one hospital holds of the phantom world."""

    kind: Literal["phantoms"]
    organs: tuple[str, ...] = Field(min_length=1)
    style: int = Field(0, ge=0, description="its scanner: one of the generator's styles")
    normal: int = Field(48, ge=0, description="normal images per organ")
    abnormal: int = Field(48, ge=0, description="abnormal images per organ, shared by its categories")
    images_per_patient: int | None = Field(
        None, ge=1, description="so many images of an organ are called one patient's; null = patients are unknown"
    )


class PhantomRehearsal(PhantomHolding):
    """Phantoms in place of patients: a hospital rehearses before it opens real images.

    For one seed and one site name these are, image for image, the phantoms of that hospital in `fed-fsad simulate`.
    """

    seed: int = Field(0, ge=0, lt=2**62, description="the run's seed")
    pose_jitter: float = Field(1.0, ge=0, le=3, description="0 = every patient lies the same way, 1 = as in a clinic")
    lesion_contrast: float = Field(1.0, gt=0, le=2, description="below 1 lesions are fainter")
    multiple: float = Field(0.0, ge=0, le=1, description="share of abnormal images with two or three anomalies")
    withheld: tuple[str, ...] = Field((), description="categories it never draws; the run's unseen categories")


class FolderHolding(Settings):
    """What one hospital gets of a data set that is split for a simulation."""

    kind: Literal["folder"]
    share: float = Field(1.0, gt=0, description="its part of the images, relative to the other hospitals")
    lacks: tuple[str, ...] = Field((), description="classes it holds no image of")


class CollectionHolding(Settings):
    """What one hospital gets of a collection: its part of the train images of its tasks."""

    kind: Literal["collection"]
    tasks: tuple[str, ...] = Field(min_length=1)
    share: float = Field(1.0, gt=0, description="its part of the images, relative to the other hospitals of the task")
    cap: int | None = Field(None, ge=1, description="images per task and class, drawn by the seed; null = all")


Holding = Annotated[PhantomHolding | FolderHolding | CollectionHolding, Field(discriminator="kind")]
