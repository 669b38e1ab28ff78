"""The two exceptions that are not faults of the program: the input is wrong, or a check failed."""


class InputError(ValueError):
    """Input that cannot be used; the message is one clear line.

    The command line prints the message on standard error and exits with status 2. A message names the
    file, the field and what was expected.
    """


class CheckFailed(Exception):
    """A comparison that had to come out equal did not; the message says what differs first.

    The command line prints the message on standard error and exits with status 1.
    """
