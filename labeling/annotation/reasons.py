"""Why a member is paused, in words. What this site says by itself is kept in English and shown in the reader's language."""

import re

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

GOLD = gettext_noop("Of the last %(n)s tasks whose answer is known, %(right)s were answered right")
QUALIFICATION = gettext_noop("Qualification: %(right)s of %(n)s right, %(needed)s were needed")


def in_own_language(reason: str) -> str:
    """A lead's own words stay as they are."""
    for known in (GOLD, QUALIFICATION):
        pattern = re.sub(r"%\\\((\w+)\\\)s|%\((\w+)\)s", lambda found: rf"(?P<{found[1] or found[2]}>\d+)", re.escape(known))
        if found := re.fullmatch(pattern, reason):
            return _(known) % found.groupdict()
    return reason
