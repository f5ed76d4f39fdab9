"""The few-shot evaluation that the server runs: one entry for every method, whatever its protocol."""

from dataclasses import replace

from fed_fsad.evaluation import categories, detection
from fed_fsad.evaluation.bed import RowsOf, TestBed, draw_support
from fed_fsad.evaluation.details import describe
from fed_fsad.evaluation.draws import each_draw
from fed_fsad.evaluation.pixels import Masks, pixel_figures
from fed_fsad.evaluation.results import Evaluation
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.evaluation.trials import Panel, Trial, panel_of, run_trials
from fed_fsad.methods.method import Method

__all__ = ["RowsOf", "TestBed", "compare", "draw_support", "evaluate"]


def evaluate(
    method: Method, rows_of: RowsOf, bed: TestBed, settings: EvaluationSettings, seed: int, *, details: bool = False
) -> Evaluation:
    """The method's figures on the bed, by its protocol; with `details` also image by image, in `Evaluation.details`.

    The same seed draws the same supports. Raises DataError when the bed cannot serve the settings or a score is not
    finite.
    """
    masks = Masks(method.image_size)
    evaluation, trials = compare(method, panel_of(method), rows_of, bed, settings, seed, masks)[method.name]
    if not details:
        return evaluation
    if method.protocol == "categories":
        trials = [trial for trial in trials if trial.draw.shots == categories.headline_shots(settings)]
    return replace(evaluation, details=describe(method, rows_of, bed, trials, settings, masks))


def compare(
    method: Method, panel: Panel, rows_of: RowsOf, bed: TestBed, settings: EvaluationSettings, seed: int, masks: Masks
) -> dict[str, tuple[Evaluation, list[Trial]]]:
    """Every detector of the panel on the draws, images and figures of the method's protocol, by the detector's name."""
    protocol = detection if method.protocol == "detection" else categories
    draws = protocol.plan(bed, settings, seed)
    found = {}
    for name, trials in run_trials(panel, rows_of, bed, draws).items():
        measured = [pixel_figures(trial, masks) for trial in trials]
        evaluation = protocol.summarise(trials, measured, settings, seed)
        if settings.each_draw:
            kept = each_draw(trials, measured, method.protocol == "categories", settings)
            evaluation = replace(evaluation, draws=kept)
        found[name] = evaluation, trials
    return found
