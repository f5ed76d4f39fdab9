"""The settings of a run. Every field is a key that a user may write in YAML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, InstanceOf, SerializeAsAny, field_validator, model_validator

from fed_fsad.config.dealing import misfit, with_hospitals
from fed_fsad.config.local import problem_of, with_local
from fed_fsad.config.secure import SecureSettings
from fed_fsad.data.plan import Allotted, PartitionSettings
from fed_fsad.data.settings import DataSettings, Holding, Name, Role, Settings
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.machine import MachineSettings
from fed_fsad.methods.local import LocalTraining
from fed_fsad.methods.method import TrainingSettings
from fed_fsad.privacy.policy import Policy, load_policy
from fed_fsad.privacy.terms import ExampleTerms, HospitalTerms

OF_THE_MEAN = ("fedavg", "fedavgm", "fedadam", "fedyogi")
"""Strategies that see the sites' updates only through their mean; hospital-level privacy is for these."""


class Hospital(Settings):
    """One site. In a real federation its name is all the server knows; a simulation also plays the hospital's side:
    what it holds, its role, and the policy that it alone decides on.
    """

    name: str = Field(pattern=Name)
    holds: Holding | None = None
    role: Role = "train"
    policy: Policy = Field(default_factory=Policy)

    @field_validator("policy", mode="before")
    @classmethod
    def _policy_from_file(cls, value: Any) -> Any:
        return load_policy(Path(value)) if isinstance(value, str) else value


class Strategy(Settings):
    """How valid replies become the next global tensors: one of Flower's strategies, behind our guard."""

    name: Literal["fedavg", "fedavgm", "fedadam", "fedyogi", "fedmedian", "fedtrimmedavg", "krum", "multikrum"] = (
        "fedavg"
    )
    options: dict[str, int | float] = Field({}, description="arguments of Flower's strategy class, by its own names")


class Federation(Settings):
    """Who takes part in a round and what happens when somebody does not."""

    rounds: int = Field(8, ge=1, description="rounds of training")
    participants: int | None = Field(None, ge=1, description="sites asked per round; null = all")
    min_replies: int | None = Field(None, ge=1, description="valid replies a round needs; null = more than half")
    deadline_s: float = Field(600.0, gt=0, description="seconds to wait for the replies of a round")
    late: Literal["drop", "use"] = Field("drop", description="replies after the deadline: dropped, or in a later round")
    suspend_after: int | None = Field(
        3, ge=1, description="rejected updates in a row after which a site is suspended; null = never"
    )
    wait_s: float = Field(120.0, gt=0, description="seconds to wait for the sites before the first round")
    retries: int = Field(2, ge=0, description="times a round is repeated before the run stops")
    weighting: Literal["equal", "size"] = Field("equal", description="sites count alike, or by their images")
    norm_factor: float = Field(20.0, gt=1, description="reject updates longer than this times the cohort's median")
    strategy: Strategy = Strategy()
    local: LocalTraining = LocalTraining()


class PrivacySettings(Settings):
    """Federation-wide privacy settings; the hospitals' policies stand above them."""

    mode: Literal["off", "example", "hospital", "both"] = Field(
        "off", description="what is asked for: example is made at every site, hospital on the server"
    )
    example: ExampleTerms = ExampleTerms()
    hospital: HospitalTerms = HospitalTerms()
    secure_aggregation: Literal["off", "on"] = Field(
        "off", description="on: updates are masked at the sites, and the server sees their sum alone"
    )
    secure: SecureSettings = SecureSettings()
    insecure_noise_seed: int | None = Field(
        None, description="tests only: seeds privacy noise, which then hides nothing"
    )

    @field_validator("mode", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, value: Any) -> Any:
        return "off" if value is False else value

    @field_validator("secure_aggregation", mode="before")
    @classmethod
    def _yaml_reads_on_as_true(cls, value: Any) -> Any:
        return {False: "off", True: "on"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _budget_is_stated(self) -> Self:
        for level, terms in (("example", self.asked), ("hospital", self.central)):
            if terms is not None and "epsilon" not in terms.model_fields_set:
                raise ValueError(f"mode {self.mode} needs a budget; state {level}.epsilon, for instance epsilon: 8")
        return self

    @property
    def asked(self) -> ExampleTerms | None:
        """The example-level privacy that every site is asked for, or None."""
        return self.example if self.mode in ("example", "both") else None

    @property
    def central(self) -> HospitalTerms | None:
        """The hospital-level privacy that the server makes, or None."""
        return self.hospital if self.mode in ("hospital", "both") else None


class Config(Settings):
    """A whole run."""

    name: str = Field(pattern=Name)
    seed: int = Field(0, ge=0, lt=2**62)
    threads: int = Field(1, ge=1, description="torch threads; part of what makes two runs equal to the last bit")
    engine: Literal["inprocess", "ray"] = "inprocess"
    ray_gpus: float = Field(0.0, ge=0, description="engine ray: GPUs per site at work; 0.25 = four sites share one")
    machine: MachineSettings = MachineSettings()
    methods: Mapping[str, SerializeAsAny[InstanceOf[TrainingSettings]]] = Field(min_length=1)
    data: DataSettings
    partition: PartitionSettings | None = Field(
        None, description="deals the images out; hospitals then only names those with a role or a policy"
    )
    hospitals: tuple[Hospital, ...] = Field(min_length=1)
    federation: Federation = Federation()
    evaluation: EvaluationSettings = EvaluationSettings()
    privacy: PrivacySettings = PrivacySettings()
    arms: tuple[Literal["pooled", "local"], ...] = Field(("pooled", "local"), description="trained for comparison")

    @model_validator(mode="before")
    @classmethod
    def _partition_makes_hospitals(cls, raw: Any) -> Any:
        return with_hospitals(raw)

    @model_validator(mode="before")
    @classmethod
    def _holdings_are_of_the_data_kind(cls, raw: Any) -> Any:
        """A holding need not repeat `kind`: it is the data's."""
        kind = raw["data"].get("kind") if isinstance(raw, dict) and isinstance(raw.get("data"), dict) else None
        hospitals = raw.get("hospitals") if isinstance(raw, dict) else None
        if kind is None or not isinstance(hospitals, list | tuple):
            return raw

        def filled(hospital: Any) -> Any:
            if not isinstance(hospital, dict):
                return hospital
            holds = hospital.get("holds")
            return {**hospital, "holds": {"kind": kind, **holds}} if isinstance(holds, dict) else hospital

        return {**raw, "hospitals": [filled(hospital) for hospital in hospitals]}

    @field_validator("privacy", mode="before")
    @classmethod
    def _mode_alone(cls, value: Any) -> Any:
        """`privacy: off` is short for a block with that mode; YAML reads it as false."""
        return {"mode": value} if isinstance(value, str | bool) else value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        names = [hospital.name for hospital in self.hospitals]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two hospitals are called {twice[0]!r}; give every hospital a name of its own")
        if any(hospital.holds and hospital.holds.kind != self.data.kind for hospital in self.hospitals):
            raise ValueError("hospitals must hold the same kind of data as data.kind says; drop `kind` from holds")
        stated = sorted(name for name, settings in self.methods.items() if settings.withheld)
        if stated:
            raise ValueError(
                f"methods.{stated[0]}.withheld follows from evaluation.unseen_categories; state the categories there"
            )
        if self.partition and (problem := misfit(self.partition, self.data)):
            raise ValueError(f"partition.{problem}")
        if not self.trainers:
            raise ValueError("every hospital is predict-only and nobody would train; give one of them role: train")
        asked = self.federation.participants or len(self.trainers)
        if asked > len(self.trainers):
            raise ValueError(f"federation.participants is {asked} but {len(self.trainers)} hospitals train; lower it")
        if (self.federation.min_replies or 1) > asked:
            raise ValueError(f"federation.min_replies is above the {asked} sites asked per round; lower it")
        if self.data.pool < max(self.evaluation.shots):
            raise ValueError(
                f"evaluation.shots asks for {max(self.evaluation.shots)} supports but data.pool keeps only "
                f"{self.data.pool}; raise data.pool or lower the shots"
            )
        return self

    @model_validator(mode="after")
    def _one_hospital_can_be_hidden(self) -> Self:
        """A guarantee per hospital bounds what one of them moves a plain mean by, and nothing else."""
        terms, chosen = self.privacy.central, self.federation
        if terms is None:
            return self
        if chosen.strategy.name not in OF_THE_MEAN:
            raise ValueError(
                f"privacy.mode {self.privacy.mode} bounds what one hospital adds to a mean, and {chosen.strategy.name} "
                f"takes none; set federation.strategy.name to one of {', '.join(OF_THE_MEAN)}"
            )
        if chosen.weighting != "equal":
            raise ValueError(
                f"privacy.mode {self.privacy.mode} counts hospitals alike; set federation.weighting: equal"
            )
        if terms.delta * len(self.trainers) >= 1:
            raise ValueError(
                f"privacy.hospital.delta {terms.delta:g} is not below 1 / {len(self.trainers)} hospitals and would "
                f"protect none; set it to {0.1 / len(self.trainers):.1g} or less"
            )
        return self

    @model_validator(mode="after")
    def _sums_can_be_masked(self) -> Self:
        terms, chosen = self.privacy.central, self.federation
        if self.privacy.secure_aggregation == "on" and (
            problem := self.privacy.secure.problem(
                chosen.participants or len(self.trainers),
                mean=chosen.strategy.name in OF_THE_MEAN,
                weighting=chosen.weighting,
                late=chosen.late,
                adaptive=terms is not None and terms.clipping == "adaptive",
            )
        ):
            raise ValueError(f"privacy.secure_aggregation {problem}")
        return self

    @model_validator(mode="after")
    def _sites_can_train_so(self) -> Self:
        private = self.privacy.mode != "off" or self.privacy.secure_aggregation == "on"
        strategy, local = self.federation.strategy.name, self.federation.local
        if problem := problem_of(local, self.methods, strategy=strategy, private=private):
            raise ValueError(f"federation.local.name {problem}")
        return self

    @property
    def training(self) -> dict[str, TrainingSettings]:
        """Settings by method, with the categories that nobody trains on and what stays at the sites filled in."""
        withheld = {"withheld": self.evaluation.unseen_categories}
        settings = {name: own.model_copy(update=withheld) for name, own in self.methods.items()}
        return with_local(self.federation.local, settings)

    @property
    def trainers(self) -> tuple[str, ...]:
        """The hospitals that train, by name."""
        return tuple(hospital.name for hospital in self.hospitals if hospital.role == "train")

    @property
    def holdings(self) -> dict[str, Holding | Allotted]:
        """What each hospital that says so holds, by name; real hospitals do not say."""
        if self.partition is not None:
            return {hospital.name: Allotted(plan=self.partition) for hospital in self.hospitals}
        return {hospital.name: hospital.holds for hospital in self.hospitals if hospital.holds is not None}
