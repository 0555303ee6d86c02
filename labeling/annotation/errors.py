from labeling.projects.errors import WrongFields


class AnnotationError(Exception):
    """Base of what the services of this app refuse; the message is meant for the person."""

    code = "refused"


class LeaseLost(AnnotationError):
    """The lease is closed: judged, skipped, or expired where an open one is needed."""

    code = "lease_lost"


class KeyReused(AnnotationError):
    """A submission key came again with another body."""

    code = "key_reused"


class AlreadyJudged(AnnotationError):
    """The annotator has judged this task under another lease."""

    code = "already_judged"


class NotRevisable(AnnotationError):
    """The project allows no revision, or a newer revision exists."""

    code = "not_revisable"


class NotRestorable(AnnotationError):
    """A judgement that was set aside can't count again."""

    code = "not_restorable"


class BadTasks(AnnotationError):
    """Tasks can't be made as asked."""

    code = "invalid"


class BadPool(WrongFields, AnnotationError):
    """A pool can't be as asked. `fields` names what is wrong."""

    code = "invalid"


class PoolInUse(AnnotationError):
    """A pool that has tasks can't be deleted."""

    code = "pool_in_use"
