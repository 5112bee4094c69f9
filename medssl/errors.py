"""Errors a user can act on. The text of each says what, where, found, expected, and what to do."""


class MedsslError(Exception):
    """Base of every error that medssl raises for input it cannot work with.

    Args:
        message: What is wrong, where, found against expected; it may hold the cure as well.
        cure: What to do, where a table shows it in a column of its own.
    """

    def __init__(self, message: str = "", cure: str = "") -> None:
        super().__init__(f"{message} {cure}".strip())
        self.finding = message
        self.cure = cure


class InputError(MedsslError):
    """A file or folder is missing, unreadable, or not what it should be."""


class GridError(InputError):
    """Two volumes of one subject do not share a voxel grid, or a grid is unusable."""


class LabelError(InputError):
    """Label values or a label table do not fit."""


class DatalistError(InputError):
    """The list of subjects contradicts itself or lacks what a command needs."""


class ImageError(InputError):
    """An image file cannot be read, or holds what no network should see."""


class CheckpointError(MedsslError):
    """Weights cannot be loaded, or belong to another network or label table."""


class OutputError(MedsslError):
    """A result cannot be written where it was asked for."""


class ConfigError(MedsslError):
    """A configuration value is unknown or out of range."""


class RegistrationError(MedsslError):
    """Two scans cannot be laid over each other, or a stored registration cannot be used."""
