"""Errors that a user can cause: one clear sentence with a remedy, and the exit code the command ends with."""


class UserError(Exception):
    """Something a user can mend. The message is one sentence that ends with the remedy."""

    exit_code = 1


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or impossible."""

    exit_code = 2


class DataError(UserError):
    """Images, masks, labels or manifests are missing, unreadable or contradict each other."""


class LedgerDamaged(DataError):
    """A hospital's privacy account is not what was written, so nothing may be trained under it."""


class Diverged(DataError):
    """Training left the numbers: its loss is NaN or infinite."""


class CheckpointError(UserError):
    """A checkpoint is corrupt, foreign, or of another config."""


class FederationError(UserError):
    """A round could not be finished: too few sites, or too few valid replies."""


class PolicyRefusal(UserError):
    """A hospital's own policy forbids what the server asked for. `code` is safe to send; it names no data."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BudgetSpent(PolicyRefusal):
    """The privacy budget does not cover another release."""

    def __init__(self, message: str) -> None:
        super().__init__("budget_spent", message)
