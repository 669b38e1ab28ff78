"""Which MPE operations are illegal, and what their steps are made of."""

from collections.abc import Mapping

from emulator.errors import IllegalInstruction
from hw.spec.machine import MachineSpec
from hw.spec.weight_format import KEPT, StepFormat, WeightFormat

__all__ = ["check_operation", "step_format"]


def step_format(operation: Mapping[str, int]) -> StepFormat:
    """What a step of the operation takes from the stream.

    Raises
    ------
    IllegalInstruction
        If no machine has such steps.
    """
    try:
        weight = WeightFormat(operation["format"])
        return StepFormat(weight, KEPT[operation["kept"]], bool(operation["bitmap"]))
    except ValueError as error:
        raise IllegalInstruction(f"MPE: format: {error}") from None


def check_operation(spec: MachineSpec, operation: Mapping[str, int]) -> None:
    """Raise `IllegalInstruction` for an operation that the hardware refuses."""
    step = step_format(operation)
    if step not in spec.step_formats:
        raise IllegalInstruction(
            f"MPE: format: {step.weight.name}, {step.kept or 16} of 16: the machine is not built with it"
        )
    for name in ("blocks", "steps", "vectors"):
        if operation[name] == 0:
            raise IllegalInstruction(f"MPE: {name}: expected at least 1, found 0")
    if not (operation["first"] and operation["last"]):
        for name, most in (("blocks", 1), ("vectors", spec.matrix_columns)):
            if operation[name] > most:
                raise IllegalInstruction(
                    f"MPE: {name}: expected at most {most} with first = 0 or last = 0, found {operation[name]}"
                )
    _check_groups(spec, operation, step)
    units = step.alignment // 4
    for name in ("activation", "activation_pitch"):
        if operation[name] % units:
            raise IllegalInstruction(
                f"MPE: {name}: expected a multiple of {units}, found {operation[name]}"
            )


def _check_groups(spec: MachineSpec, operation: Mapping[str, int], step: StepFormat) -> None:
    steps, group_steps = operation["steps"], operation["group_steps"]
    if not operation["scaled"]:
        return
    if group_steps == 0 or steps % group_steps:
        raise IllegalInstruction(
            f"MPE: group_steps: expected a divisor of {steps}, found {group_steps}"
        )
    if group_steps * step.cycles < spec.rows_per_scaler:
        raise IllegalInstruction(
            f"MPE: group_steps: expected at least {spec.rows_per_scaler} cycles (rows_per_scaler), found "
            f"{group_steps * step.cycles}"
        )
