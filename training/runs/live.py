"""Who may hear of a run while its page is open."""

from labeling.accounts.models import User
from labeling.accounts.roles import READING
from labeling.live.consumers import Audience
from labeling.projects.selectors import projects_of
from training.runs.models import Run


def run_audience(user: User, run_id: int) -> Audience | None:
    run = Run.objects.filter(pk=run_id, project__in=projects_of(user, roles=READING)).first()
    return Audience(run.live_group) if run else None
