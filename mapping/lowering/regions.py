"""Regions of a buffer or of the memory, handed out one behind the other."""

from dataclasses import dataclass, field

from hw.spec.errors import InputError
from hw.spec.machine import MachineSpec


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


@dataclass
class Regions:
    """Regions handed out one behind the other in a buffer or memory.

    Parameters
    ----------
    name : str
        Field of the target that bounds it, for messages.
    size : int
        Its size, in the unit of the regions.
    used : int
        Where the last region ends.
    taken : dict of str to (int, int)
        Start and length of each.
    phases : list of set of str
        Regions that are never in use together with those of another phase, and may share room with them.
    """

    name: str
    size: int
    used: int = 0
    taken: dict[str, tuple[int, int]] = field(default_factory=dict)
    phases: list[set[str]] = field(default_factory=list)

    def take(self, name: str, length: int, align: int = 1) -> int:
        """First address of a new region."""
        start = round_up(self.used, align)
        self.used = start + length
        self.taken[name] = (start, length)
        return start

    def check(self, target: str) -> None:
        """Refuse what does not fit, and say by how much."""
        if self.used > self.size:
            raise InputError(
                f"target {target}: {self.name}: the model needs {self.used}, the target has {self.size} "
                f"({self.used - self.size} too few)"
            )


def buffer_regions(
    spec: MachineSpec, bound: str, lengths: dict[str, int], *phases: dict[str, int]
) -> Regions:
    """Regions of the buffer that the target's field `bound` gives the size of, each from a whole granule on.

    The vector unit reads whole granules: behind a vector in the input buffer there is room for the rest of one.

    Parameters
    ----------
    spec : MachineSpec
    bound : str
    lengths : dict of str to int
        Regions that are in use all the time.
    phases : dicts of str to int
        Regions of parts of a layer whose use of the buffer ends before that of the next one begins: they share room.
    """
    regions = Regions(bound, getattr(spec, bound))
    align, more = max(1, spec.granule // spec.lanes), 0
    if bound == "activation_rows":
        align = spec.activation_row_bytes // spec.lanes
    elif bound == "input_words":
        align = max(1, 4 * spec.granule // spec.word_bytes)
        more = align - 1
    elif bound in ("scalars", "matrix_scales"):
        align = 1
    for name, length in lengths.items():
        regions.take(name, length + more, align)
    begin = end = regions.used
    for phase in phases:
        regions.used = begin
        regions.phases.append(set(phase))
        for name, length in phase.items():
            regions.take(name, length + more, align)
        end = max(end, regions.used)
    regions.used = end
    regions.check(spec.name)
    return regions
