class AccountError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""


class UsernameTaken(AccountError):
    pass


class BadScope(AccountError):
    pass
