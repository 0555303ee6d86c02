from labeling.projects.errors import WrongFields


class WebhookError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""

    code = "refused"


class BadWebhook(WrongFields, WebhookError):
    """A webhook can't be made or changed as asked. `fields` names what is wrong."""

    code = "invalid"


class NotNow(WebhookError):
    """A delivery that is under way, or a webhook that is switched off, can't be sent to now."""

    code = "wrong_state"


class TooManyTests(WebhookError):
    """So many tests were sent that the next one has to wait."""

    code = "throttled"
