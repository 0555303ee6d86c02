"""What this app refuses, and what can go wrong with a model server, in words for the annotator."""

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as later

from labeling.projects.errors import WrongFields


class ConversationError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""

    code = "refused"


class NotSetUp(ConversationError):
    """The project has no conversations, or is paused."""

    code = "not_set_up"


class ConversationOver(ConversationError):
    """The conversation has ended, or has as many turns as it may."""

    code = "conversation_over"


class TurnOpen(ConversationError):
    """The turn before is still being generated or waits to be judged."""

    code = "turn_open"


class NothingToRepeat(ConversationError):
    """The turn is not one that can be sampled again."""

    code = "nothing_to_repeat"


class TooMuchAtOnce(ConversationError):
    """The person has as many completions under way, or has seen as much today, as is allowed."""

    code = "too_much_at_once"


class KeyReused(ConversationError):
    """A key came again with another message."""

    code = "key_reused"


class BadSettings(WrongFields, ConversationError):
    """Settings that can't work. `fields` says where and why."""

    code = "invalid"


class ClaimLost(Exception):
    """Another process has taken the turn over, or it was ended: stop working on it."""


class ServerTrouble(Exception):
    """A model server didn't do as asked. `code` is one of PROBLEMS; the text is for leads and names the server."""

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        super().__init__(detail)


# None of these says which of the two completions it was about: that would tell them apart.
PROBLEMS = {
    "unreachable": later("The model can't be reached: its server is stopped or does not answer."),
    "refused": later("The model's server refused the request."),
    "no_model": later("The model's server doesn't offer this model any more."),
    "busy": later("The model's server has too much to do just now."),
    "stalled": later("The model stopped answering in the middle, or took too long to begin."),
    "cut": later("The connection to the model broke off before the end."),
    "garbage": later("The model's server answered with something that is no completion."),
    "failed": later("The model's server reported an error."),
    "too_long": later("The conversation has become too long for the model. End it and begin another."),
    "too_much": later("The model went on without end, so it was stopped."),
    "equal": later("Both completions say exactly the same, so there is nothing to compare."),
    "empty": later("A completion came back empty, so there is nothing to compare."),
    "stopped": later("Stopped before both completions had begun."),
    "skipped": later("You passed over this comparison."),
    "internal": later("Something went wrong here while the completions were made."),
}
ASK_LEAD = {"unreachable", "refused", "no_model", "busy", "stalled", "cut", "garbage", "failed", "too_much", "internal"}


def sentence_for(problem: str) -> str:
    """What happened and what to do, for the annotator."""
    text = gettext(PROBLEMS.get(problem, PROBLEMS["internal"]))
    if problem in ASK_LEAD:
        return f"{text} {gettext('Your message is kept. Try again; if it goes on, tell the lead of your project.')}"
    return text
