"""Settings of where images come from and how a simulated federation shares them out."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base of every group of settings: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PhantomData(Settings):
    """Images drawn by the phantom generator: six organs, with masks; reproducible from (seed, index)."""

    kind: Literal["phantoms"]
    pose_jitter: float = Field(1.0, ge=0, le=3, description="0 = every patient lies the same way, 1 = as in a clinic")
    lesion_contrast: float = Field(1.0, gt=0, le=2, description="below 1 lesions are fainter")
    test_normal: int = Field(48, ge=1, description="normal test images per organ, on the server")
    test_abnormal: int = Field(48, ge=1, description="abnormal test images per organ, shared by its categories")
    pool: int = Field(24, ge=1, description="images per organ and class to draw support sets from, on the server")


class FolderData(Settings):
    """Images on disk: `{train,test}/{class}/*`, or a CSV manifest `path,split,label,categories,patient,mask`.

    In folders, a mask lies in `masks/{split}/{class}/` under its image's name, as PNG or TIFF.
    """

    kind: Literal["folder"]
    root: Path = Field(description="folder that holds train/ and test/, or the manifest's paths")
    manifest: Path | None = Field(None, description="CSV manifest, relative to root; without it the folders are read")
    task: str = Field(description="organ and modality, e.g. brain_mri; names the sign list")
    normal: tuple[str, ...] = Field(("normal",), min_length=1, description="class names that mean: no anomaly")
    pool: int = Field(24, ge=1, description="train images per class kept by the server to draw support sets from")


DataSettings = Annotated[PhantomData | FolderData, Field(discriminator="kind")]


class PhantomHolding(Settings):
    """What one hospital holds of the phantom world."""

    kind: Literal["phantoms"]
    organs: tuple[str, ...] = Field(min_length=1)
    style: int = Field(0, ge=0, description="its scanner: one of the generator's styles")
    normal: int = Field(48, ge=0, description="normal images per organ")
    abnormal: int = Field(48, ge=0, description="abnormal images per organ, shared by its categories")


class FolderHolding(Settings):
    """What one hospital gets of a data set that is split for a simulation."""

    kind: Literal["folder"]
    share: float = Field(1.0, gt=0, description="its part of the images, relative to the other hospitals")
    lacks: tuple[str, ...] = Field((), description="classes it holds no image of")


Holding = Annotated[PhantomHolding | FolderHolding, Field(discriminator="kind")]
