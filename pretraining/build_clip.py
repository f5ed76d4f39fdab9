"""Making the embedded CLIP: tokenizer, corpus, training, figures, card."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load

from fed_fsad.methods.sdmad.backbone import Tokenizer, small_tokenizer
from pretraining.card import Card, as_stored, publish
from pretraining.clip import ARCHITECTURE, ClipTraining, clip_plan
from pretraining.corpus import PhantomCorpus, tokenizer_texts
from pretraining.device import best_device
from pretraining.figures import CARD_SEED, CHOICE_SEED, clip_tables
from pretraining.presets import Run
from pretraining.tokenizer import learn_merges, write_merges
from pretraining.training import Point, train
from pretraining.zero_shot import averaged, category_sets, zero_shot_figures

TEXT = """
An open_clip model trained on phantoms of all six organs, any scanner style, pose jitter 0.4 to 1.4, lesion contrast
0.6 to 1.3, 35 % normal, 15 % of the others with two findings. Held-out kinds and the signs only they have are never
seen. For the first 40 % of the steps the image tower alone learns, by a linear head on its patches, where lesions are
and of which kind; then images are also matched with captions, with every single sign of their organ (multi-positive,
both directions), and by SD-MAD's stage-1 loss. The head is thrown away. Corpus seeds are odd
and negative, those of the figures even and negative: no config can draw either. Figures are zero-shot AUROC with
signs: "binary" abnormal against normal, "category" one kind against normal, "other" one kind against the other kinds.
"plan: begun" is the SHA-256 of weights that it went on from, if any: such a run learns everything from its first step.
"""
SIZE = 96
MERGES, TOKENIZER_CAPTIONS = 1000, 2000
MERGES_FILE = "bpe.txt.gz"


def make_clip(run: Run, count: int, begin: Path | None) -> str:
    """Learn the tokenizer, train the CLIP and write model.json, merges, weights and card below `run.out`.

    count: per kind and organ in the figures. begin: folder of an earlier CLIP, whose tokenizer is kept and whose
    weights are trained on. Returns the weights' SHA-256.
    """
    state = run.state("clip")
    begun = (begin / "weights.safetensors").read_bytes() if begin else b""
    plan = clip_plan(run.seed, run.amount.steps, hashlib.sha256(begun).hexdigest() if begun else "")
    config, tokenizer = _language(run, begin)
    training = ClipTraining(config, tokenizer, PhantomCorpus(run.seed, run.amount.images, SIZE), plan)
    if begun:
        training.model.load_state_dict(load(begun))
    training.to(best_device())
    watched = category_sets(CHOICE_SEED, count, SIZE, held_out=False)

    def watch() -> Point:
        return averaged(zero_shot_figures(training.model, tokenizer, training.mean, training.std, watched))

    curve = train(training, training.loss, plan, state, watch)
    tables = clip_tables(as_stored(training.model), config, tokenizer, run.seed, count)
    command = f"python -m pretraining clip {run.options}" + (" --begin FOLDER" if begin else "")
    card = Card("The embedded CLIP", TEXT, command, plan, count, (CARD_SEED,), tables, curve)
    return publish(run.out, "clip", training.model.state_dict(), card)


def _language(run: Run, begin: Path | None) -> tuple[dict[str, Any], Tokenizer]:
    """Write merges and model.json, and give the model's config and tokenizer."""
    folder = run.out / "clip"
    folder.mkdir(parents=True, exist_ok=True)
    if begin is None:
        write_merges(learn_merges(tokenizer_texts(run.seed, TOKENIZER_CAPTIONS), MERGES), folder / MERGES_FILE)
    else:
        (folder / MERGES_FILE).write_bytes((begin / MERGES_FILE).read_bytes())
    config = copy.deepcopy(ARCHITECTURE)
    text = config["model_cfg"]["text_cfg"]
    tokenizer = small_tokenizer(folder / MERGES_FILE, text["context_length"])
    text["vocab_size"] = tokenizer.vocab_size
    (folder / "model.json").write_text(json.dumps(config, indent=2) + "\n")
    return config, tokenizer
