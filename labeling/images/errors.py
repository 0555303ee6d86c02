class BadImage(Exception):
    """The file is none that can be shown; the message says why."""


class ImageTooLarge(BadImage):
    """More bytes or pixels than are taken."""
