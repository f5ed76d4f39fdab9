"""The server's own few-shot evaluation: its images, its supports, the baselines beside every method."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from fed_fsad import methods
from fed_fsad.config import Config
from fed_fsad.data.build import server_samples
from fed_fsad.evaluation.baselines import evaluate_baselines
from fed_fsad.evaluation.draws import save_draws
from fed_fsad.evaluation.gallery import save_details, save_resamples
from fed_fsad.evaluation.protocols import TestBed, evaluate
from fed_fsad.evaluation.results import Evaluation
from fed_fsad.messages import Tensors
from fed_fsad.methods.method import Method
from fed_fsad.residents import resident, rows_of
from fed_fsad.rundir import Event, RunDir


class Scorer:
    """Evaluates global tensors on images that no hospital holds."""

    def __init__(self, config: Config, run: RunDir) -> None:
        self._config = config
        self._run = run
        self._methods = {name: resident(name, block, config.seed) for name, block in config.training.items()}
        pool, test = server_samples(
            config.data,
            config.holdings,
            config.seed,
            frozenset(config.evaluation.unseen_categories),
            config.evaluation.unseen_task,
        )
        self._bed = TestBed(tuple(pool), tuple(test))

    @property
    def texts(self) -> dict[str, str]:
        """A hash of the texts that each method's tensors belong to."""
        return {name: method.texts_id for name, method in self._methods.items()}

    def initial(self) -> dict[str, dict[str, Tensor]]:
        """The tensors a federation starts from, drawn from the run's seed, by method."""
        return {
            name: methods.build(name, block, self._config.seed).snapshot()
            for name, block in self._config.training.items()
        }

    def evaluate(self, tensors: Mapping[str, Tensors], round_: int, final: bool) -> Iterator[Event]:
        """One evaluation event per method; in the final round also the baselines, curves and heatmaps."""
        for name, method in self._methods.items():
            method.load(tensors[name])
            yield self.score(name, method, {"kind": "evaluation", "round": round_, "final": final}, details=final)
            if final:
                yield from self._baselines(name, method)

    def score(self, name: str, method: Method, event: Event, details: bool = False) -> Event:
        """`event` with the figures of the tensors that `method` holds now."""
        settings = self._config.evaluation
        result = evaluate(method, rows_of(method), self._bed, settings, self._config.seed, details=details)
        self._save(name, _detector(event), result)
        if result.details is not None:
            save_details(result.details, self._run.path / "evaluation" / name)
        return {**event, "method": name, **result.summary()}

    def _baselines(self, name: str, method: Method) -> Iterator[Event]:
        found = evaluate_baselines(method, rows_of(method), self._bed, self._config.evaluation, self._config.seed)
        for baseline, result in found.items():
            self._save(name, f"baseline-{baseline}", result)
            yield {"kind": "baseline", "method": name, "name": baseline, **result.summary()}

    def _save(self, name: str, detector: str, result: Evaluation) -> None:
        """What intervals and tables over several runs are made of."""
        folder = self._run.path / "evaluation" / name
        save_resamples(result.resamples, folder, detector)
        if result.draws is not None:
            save_draws(result.draws, folder, detector)


def _detector(event: Event) -> str:
    """Whose figures an event holds, as a file name: federated, untrained, pooled, local-SITE."""
    if event["kind"] == "evaluation":
        return "federated" if event["round"] else "untrained"
    return "-".join(filter(None, (event["arm"], event["site"])))
