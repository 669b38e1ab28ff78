"""What the emulator says of a program that hardware would not run as meant."""


class IllegalInstruction(ValueError):
    """An instruction that the hardware flags as illegal."""


class IllegalProgram(ValueError):
    """A race, an overrun, a deadlock or a token overflow: the program is not legal."""
