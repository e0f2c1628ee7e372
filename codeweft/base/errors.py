"""The tree of errors a person can meet; everything else that is raised is a fault of ours.

In:  a message saying what is wrong and where, and the next step.  Out: one or two lines for the terminal, an exit code.

    CodeweftError
    ├── UserError            exit 1   something outside the program is wrong: files, settings, models, requests
    │   ├── ConfigError               a recipe or an override says what cannot be
    │   ├── InputError                a source, folder or file cannot be used as it is
    │   ├── ModelError                a model folder is broken or cannot do what is asked
    │   └── BusyError                 somebody else holds the run folder
    └── UsageError           exit 2   the command line itself is wrong
"""


class CodeweftError(Exception):
    """What is wrong, where, and what to do now.

    `message` names the thing; `next_step` is one imperative sentence (may be empty when the message holds it).
    """

    exit_code = 1

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}".strip()


class UserError(CodeweftError):
    """Something a person gave the program cannot be used."""


class ConfigError(UserError):
    """A recipe or an override names an unknown setting or gives it an impossible value."""


class InputError(UserError):
    """A source, a folder or a file is missing, unreadable or damaged."""


class ModelError(UserError):
    """A model folder is damaged, or the model in it cannot do what is asked of it."""


class BusyError(UserError):
    """Another process works in the same run folder."""


class UsageError(CodeweftError):
    """The command line does not parse; `next_step` names the nearest right spelling."""

    exit_code = 2
