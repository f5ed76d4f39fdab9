"""What a site makes of an instruction before it works: the tensors it may load, the images it may use."""

from collections.abc import Collection, Sequence

from fed_fsad.data.samples import Sample
from fed_fsad.messages import Instruction, MalformedMessage
from fed_fsad.methods.method import Method


def load_received(method: Method, instruction: Instruction) -> None:
    """The server's tensors, all of them and as they are: none left from another run, none stretched to fit.

    Raises MalformedMessage.
    """
    sent, own = instruction.tensors.get(method.name, {}), method.trainable()
    if {name: value.shape for name, value in sent.items()} != {name: value.shape for name, value in own.items()}:
        raise MalformedMessage(f"the tensors sent for {method.name} are not those that this version trains")
    method.load(sent)


def without(samples: Sequence[Sample], withheld: Collection[str]) -> list[Sample]:
    """The images of patients who have none of the `withheld` categories, which nobody may train on."""
    bad = {sample.id for sample in samples if set(withheld) & set(sample.categories)}
    patients = {sample.patient for sample in samples if sample.id in bad} - {None}
    return [sample for sample in samples if sample.id not in bad and sample.patient not in patients]
