"""Sign lists: the bundled ones are complete and clean, a user's faulty one is explained."""

import re
from pathlib import Path

import pytest
from open_clip import get_tokenizer

from fed_fsad.assets import asset
from fed_fsad.data.phantoms import HELD_OUT, ORGANS
from fed_fsad.data.signs import bundled_signs, load_signs
from fed_fsad.errors import ConfigError
from fed_fsad.methods.sdmad.backbone import read_config, small_tokenizer

DIAGNOSES = re.compile(
    "oedema|edema|mass|bleed|haemorrh|hydroceph|tumour|tumor|cancer|carcinom|gliom|meningiom|adenoma|"
    "pneumo|effusion|consolidat|nodule|cardiomeg|exudate|cotton|glaucom|drusen|cyst|metasta|steatosis|"
    "infiltrat|lymphocyt|necro|retinopath|disease|diagnos"
)
REAL = {
    "brain_mri": {"glioma", "meningioma", "pituitary"},
    "retina": {"grade1", "grade2", "grade3", "grade4"},
    "chest_xray": {"pneumonia"},
    "lung_histology": {"adenocarcinoma", "squamous_cell_carcinoma"},
}


def write(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_five_lists_are_bundled() -> None:
    assert set(bundled_signs()) == {"phantoms", *REAL}


@pytest.mark.parametrize("name", bundled_signs())
def test_bundled_lists_are_clean(name: str) -> None:
    for signs in load_signs(name).tasks.values():
        for category, own in [("normal", signs.normal), *signs.categories.items()]:
            assert 4 <= len(own) <= 10, category
            for sign in own:
                assert sign[0].islower()
                assert len(sign.split()) <= 10, sign
                assert not DIAGNOSES.search(sign), sign
                assert category not in sign
        lists = list(signs.categories.values())
        assert all(set(a) != set(b) for i, a in enumerate(lists) for b in lists[:i])


@pytest.mark.parametrize("task", REAL)
def test_every_category_of_a_real_set_has_eight_signs(task: str) -> None:
    signs = load_signs(task)[task]
    assert {name: len(own) for name, own in signs.categories.items()} == dict.fromkeys(REAL[task], 8)
    assert len(signs.normal) == 8


@pytest.mark.parametrize("name", bundled_signs())
def test_every_sign_fits_the_embedded_model_and_clip_with_its_context_tokens(name: str) -> None:
    embedded = read_config(asset("clip/model.json"))["model_cfg"]["text_cfg"]["context_length"]
    readers = [(small_tokenizer(asset("clip/bpe.txt.gz"), embedded), embedded), (get_tokenizer("ViT-B-32"), 77)]
    for signs in load_signs(name).tasks.values():
        texts = [f"a {signs.modality} image showing {sign}" for sign in signs.vocabulary]
        for read, limit in readers:
            longest = int(read(texts, context_length=4 * limit).argmax(dim=1).max()) + 1
            assert longest + 4 <= limit


@pytest.mark.parametrize("name", bundled_signs())
def test_shared_signs_are_written_alike(name: str) -> None:
    signs = {s for task in load_signs(name).tasks.values() for s in task.vocabulary}
    bare = [" ".join(s.lower().replace("-", " ").split()) for s in signs]
    assert len(set(bare)) == len(bare)


@pytest.mark.parametrize(("task", "categories"), REAL.items())
def test_lists_of_real_sets_use_the_folders_names(task: str, categories: set[str]) -> None:
    assert set(load_signs(task)[task].categories) == categories


@pytest.mark.parametrize("task", ORGANS)
def test_phantom_list_covers_every_anomaly_and_modality(task: str) -> None:
    signs = load_signs("phantoms")[task]
    assert set(signs.categories) == set(ORGANS[task].kinds)
    assert signs.modality == ORGANS[task].modality


@pytest.mark.parametrize(("task", "category"), sorted(HELD_OUT))
def test_most_signs_of_a_held_out_category_are_seen_elsewhere(task: str, category: str) -> None:
    book = load_signs("phantoms")
    seen = {
        sign
        for other, signs in book.tasks.items()
        for name, own in signs.categories.items()
        if (other, name) not in HELD_OUT
        for sign in own
    }
    own = book[task].categories[category]
    assert len(set(own) & seen) >= 0.7 * len(own)


def test_vocabulary_holds_each_sign_once_with_normal_first() -> None:
    signs = load_signs("brain_mri")["brain_mri"]
    assert signs.vocabulary[: len(signs.normal)] == signs.normal
    assert set(signs.vocabulary) == set(signs.normal).union(*signs.categories.values())
    assert len(set(signs.vocabulary)) == len(signs.vocabulary)
    assert signs.vocabulary.count("a sharp smooth margin") == 1  # of meningioma and of pituitary


def test_own_file_is_read_and_signs_are_trimmed(tmp_path: Path) -> None:
    path = write(tmp_path, "skin:\n  modality: photo\n  normal: [even skin]\n  categories: {mole: [' a dark spot ']}\n")
    assert load_signs(path)["skin"].categories["mole"] == ("a dark spot",)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("normal: [even]\n  categories: {a: []}", "categories > a has no signs; list at least one"),
        ("normal: [even]\n  categories: {a: [x, y, x]}", "categories > a: sign 'x' appears twice; remove one"),
        ("normal: []\n  categories: {a: [x]}", "normal has no signs"),
        ("normal: [even]\n  categories: {}", "categories has no signs"),
        ("categories: {a: [x]}", "normal is missing; add it"),
        ("normal: [even]\n  categories: {a: ['']}", "categories > a > 0"),
        ("normal: [even]\n  classes: {}\n  categories: {a: [x]}", "skin > classes"),
        ("normal: [even\n  categories: {}", "not valid YAML at line"),
    ],
)
def test_faulty_file_gives_one_sentence(tmp_path: Path, body: str, message: str) -> None:
    path = write(tmp_path, f"skin:\n  modality: photo\n  {body}\n")
    with pytest.raises(ConfigError) as caught:
        load_signs(path)
    text = str(caught.value)
    assert message in text
    assert path in text
    assert "\n" not in text


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_file_that_is_no_list_of_tasks_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="the file"):
        load_signs(write(tmp_path, text))


def test_unknown_names_come_with_the_nearest_right_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'phantom'; did you mean 'phantoms'\?"):
        load_signs("phantom")
    with pytest.raises(ConfigError, match="does not exist; check the path"):
        load_signs(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"no task 'brain'; did you mean 'brain_mri'\?"):
        load_signs("phantoms")["brain"]
