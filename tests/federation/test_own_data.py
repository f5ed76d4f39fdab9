"""docs/own-data.md, followed to the letter: two lines, the manifest, the signs."""

import re
from pathlib import Path

from fed_fsad.config import load_config
from fed_fsad.data.build import hospital_samples, server_samples
from fed_fsad.data.scan import scan
from fed_fsad.data.settings import FolderData
from fed_fsad.data.signs import load_signs
from fed_fsad.methods.sdmad.vocabulary import build_vocabulary
from tests.conftest import write_image, write_set

REPOSITORY = Path(__file__).parents[2]
TEMPLATE = (REPOSITORY / "configs" / "own_images.yaml").read_text(encoding="utf-8")
COUNTS = {"train/healthy": 120, "train/fracture": 40, "train/pneumonia": 40, "test/healthy": 4, "test/fracture": 4}


def blocks(language: str) -> list[str]:
    """The page's code blocks of one language."""
    page = (REPOSITORY / "docs" / "own-data.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def changed(root: Path) -> str:
    """The template after the page's first step, with another root."""
    lines = TEMPLATE.splitlines()
    places = [i for i, line in enumerate(lines) if "# change:" in line]
    for place, line in zip(places, blocks("yaml")[0].splitlines(), strict=True):
        assert lines[place].split(":")[0] == line.split(":")[0]
        lines[place] = line.replace("/home/me/x-rays", str(root))
    return "\n".join(lines)


def test_two_changed_lines_serve_a_folder(tmp_path: Path) -> None:
    root = write_set(tmp_path / "x-rays", COUNTS)
    mine = tmp_path / "my_images.yaml"
    mine.write_text(changed(root), encoding="utf-8")
    config = load_config(mine)
    pool, test = server_samples(config.data, config.holdings, config.seed, frozenset(), None)
    assert (len(pool), len(test)) == (24 + 10 + 10, 8)
    sizes = {
        site: len(hospital_samples(config.data, config.holdings, site, config.seed, frozenset(), None))
        for site in config.holdings
    }
    assert sum(sizes.values()) == 200 - len(pool)
    assert min(sizes, key=lambda site: sizes[site]) == "lakeside"


def test_the_manifest_of_the_page_is_read_as_it_says(tmp_path: Path) -> None:
    (manifest,) = blocks("csv")
    (tmp_path / "list.csv").write_text(manifest, encoding="utf-8")
    names = re.findall(r"^scans/\d+\.png", manifest, flags=re.MULTILINE)
    for seed, name in enumerate(names):
        write_image(tmp_path / name, seed)
    write_image(tmp_path / "masks" / "0003.png", seed=99)
    found = scan(
        FolderData(kind="folder", root=tmp_path, manifest=Path("list.csv"), task="own_images", normal=("healthy",))
    )
    assert [sample.categories for sample in found.train] == [(), ("fracture", "pneumonia")]
    assert [sample.categories for sample in found.test] == [("fracture",)]
    assert None not in {sample.patient for sample in (*found.train, *found.test)}
    mask = found.test[0].source.mask(16)
    assert mask is not None
    assert mask.any()


def test_the_signs_of_the_page_serve_the_categories_of_the_page(tmp_path: Path) -> None:
    (text,) = [block for block in blocks("yaml") if "modality" in block]
    signs = tmp_path / "my_signs.yaml"
    signs.write_text(text, encoding="utf-8")
    template = TEMPLATE.replace("  # sdmad:", "  sdmad:").replace("  #   signs:", "    signs:")
    mine = tmp_path / "my_images.yaml"
    mine.write_text(template.replace("configs/my_signs.yaml", str(signs)), encoding="utf-8")
    config = load_config(mine)
    assert isinstance(config.data, FolderData)
    table = build_vocabulary(load_signs(name) for name in config.training["sdmad"].model_dump()["signs"])
    assert table.task(config.data.task).labels([("fracture", "pneumonia"), ()]).tolist() == [[True, True], [False] * 2]
