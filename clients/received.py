"""What a site makes of an instruction before it works: the tensors it may load, the images it may use."""

from collections.abc import Collection, Sequence

from clients.local import LocalParts
from clients.site import Site
from fed_fsad.data.samples import Sample
from fed_fsad.errors import ConfigError
from fed_fsad.messages import Instruction, MalformedMessage
from fed_fsad.methods.method import Method, travelling
from fed_fsad.residents import start_of


def load_received(site: Site, method: Method, instruction: Instruction, next_round: int) -> None:
    """The server's tensors, all of them and as they are: none left from another run, none stretched to fit. Then the
    site's own parts, as they are before `next_round` is trained.

    Raises MalformedMessage, ConfigError when the site reads other texts than the server, and CheckpointError for own
    parts that cannot be trusted.
    """
    name, settings = method.name, instruction.settings[method.name]
    sent, own = instruction.tensors.get(name, {}), travelling(method.trainable(), settings)
    if instruction.texts.get(name, method.texts_id) != method.texts_id:
        raise ConfigError(f"the sign lists of {name} here are not the server's; copy the server's files to this site")
    if {key: value.shape for key, value in sent.items()} != {key: value.shape for key, value in own.items()}:
        raise MalformedMessage(f"the tensors sent for {name} are not those that this version trains")
    method.load(sent)
    if settings.local_parts:
        start = start_of(name, settings, instruction.seed)
        method.load(LocalParts(site.state, instruction.run, name).before(next_round, start))


def without(samples: Sequence[Sample], withheld: Collection[str]) -> list[Sample]:
    """The images of patients who have none of the `withheld` categories, which nobody may train on."""
    bad = {sample.id for sample in samples if set(withheld) & set(sample.categories)}
    patients = {sample.patient for sample in samples if sample.id in bad} - {None}
    return [sample for sample in samples if sample.id not in bad and sample.patient not in patients]
