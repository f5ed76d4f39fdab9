"""Making the embedded weights from nothing but a seed: data, training, figures, card."""

import copy
import json
from pathlib import Path
from typing import TypeVar

from torch import nn

from fed_fsad.methods.sdmad.backbone import small_tokenizer
from pretraining.card import Card, halved, publish
from pretraining.clip import ARCHITECTURE, ClipTraining, clip_plan
from pretraining.corpus import PhantomCorpus, tokenizer_texts
from pretraining.figures import CHOICE_SEED, OTHERS, clip_tables, teacher_tables
from pretraining.measure import detection_figures, phantom_detection_sets
from pretraining.protocol import validation_seed
from pretraining.teacher import SIZE, TeacherTraining, teacher_plan
from pretraining.tokenizer import learn_merges, write_merges
from pretraining.training import Point, train
from pretraining.zero_shot import averaged, category_sets, zero_shot_figures

TEACHER_TEXT = """
A SmallResNet trained on formula-made images alone: families of layered shapes and textures, none of them an organ.
Every step shows new families, each as four unaltered supports and four queries, half of them altered somewhere (a
foreign region, a displaced piece, a change of brightness, lost structure, a swelling). The loss asks that the distance
to the nearest support patch, at any place and at the same place, tells altered places and images; a light decoder
reads texture, outlines and foreign regions from all four stages. Figures are image AUROC at K = 4 of nearest-neighbour
scores, mean of three support draws; "untrained" is the same network before training.
"""
CLIP_TEXT = """
An open_clip model trained on phantoms of all six organs, any scanner style, pose jitter 0.4 to 1.4, lesion contrast
0.6 to 1.3, 35 % normal, 15 % of the others with two findings. Held-out kinds and the signs only they have are never
seen. For the first 40 % of the steps the image tower alone learns, by a linear head on its patches, where lesions are
and of which kind; then images are also matched with captions, with every single sign of their organ (multi-positive,
both directions), and by SD-MAD's stage-1 loss. The head is thrown away. Corpus seeds are odd
and negative, those of the figures even and negative: no config can draw either. Figures are zero-shot AUROC with
signs: "binary" abnormal against normal, "category" one kind against normal, "other" one kind against the other kinds.
"""
NetworkT = TypeVar("NetworkT", bound=nn.Module)
MERGES, TOKENIZER_CAPTIONS = 1000, 2000


def make_teacher(seed: int, steps: int, images: int, work: Path, root: Path, real: Path | None) -> str:
    """Train the teacher and write its weights and card below `root`; returns their SHA-256.

    images: test images of each label per organ in the figures. work: folder of state files. real: the real sets.
    """
    training = TeacherTraining(seed)
    plan = teacher_plan(seed, steps)
    watched = phantom_detection_sets(OTHERS, validation_seed(CHOICE_SEED), images, SIZE)

    def watch() -> Point:
        return averaged(detection_figures(training.network, watched, CHOICE_SEED))

    curve = train(training, training.loss, plan, _state(work, "teacher"), watch)
    tables = teacher_tables(_as_stored(training.network), seed, images, real)
    command = f"python -m pretraining teacher --seed {seed} --steps {steps}"
    card = Card("The embedded teacher", TEACHER_TEXT, command, plan, images, tables, curve)
    return publish(root, "teacher", training.network.state_dict(), card)


def make_clip(seed: int, steps: int, images: int, work: Path, root: Path, corpus: int) -> str:
    """Learn the tokenizer, train the CLIP and write model.json, merges, weights and card below `root`.

    images: per kind and organ in the figures. corpus: phantoms to learn from. Returns the weights' SHA-256.
    """
    merges = learn_merges(tokenizer_texts(seed, TOKENIZER_CAPTIONS), MERGES)
    (root / "clip").mkdir(parents=True, exist_ok=True)
    write_merges(merges, root / "clip" / "bpe.txt.gz")
    config = copy.deepcopy(ARCHITECTURE)
    text = config["model_cfg"]["text_cfg"]
    tokenizer = small_tokenizer(root / "clip" / "bpe.txt.gz", text["context_length"])
    text["vocab_size"] = tokenizer.vocab_size
    (root / "clip" / "model.json").write_text(json.dumps(config, indent=2) + "\n")

    plan = clip_plan(seed, steps)
    training = ClipTraining(config, tokenizer, PhantomCorpus(seed, corpus, SIZE), plan)
    watched = category_sets(CHOICE_SEED, images, SIZE, held_out=False)

    def watch() -> Point:
        return averaged(zero_shot_figures(training.model, tokenizer, training.mean, training.std, watched))

    curve = train(training, training.loss, plan, _state(work, f"clip-{corpus}"), watch)
    tables = clip_tables(_as_stored(training.model), config, tokenizer, seed, images)
    command = f"python -m pretraining clip --seed {seed} --steps {steps} --corpus {corpus}"
    card = Card("The embedded CLIP", CLIP_TEXT, command, plan, images, tables, curve)
    return publish(root, "clip", training.model.state_dict(), card)


def _state(work: Path, name: str) -> Path:
    """Where the state file lies; what a plan does not say, the size of the corpus, is in its name."""
    work.mkdir(parents=True, exist_ok=True)
    return work / f"{name}.pt"


def _as_stored(network: NetworkT) -> NetworkT:
    """The network with its weights rounded as the file will hold them, so that a card's figures are the file's."""
    network.load_state_dict({name: halved(value) for name, value in network.state_dict().items()})
    return network.eval()
