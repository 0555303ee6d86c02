"""Which tasks a member may be given. The app of annotation knows, and stands above this one, so it says so here.

`labeling.annotation.apps` sets the function when Django starts.
"""

from collections.abc import Callable, Collection

from django.db import connection

from labeling.projects.models import Project


def _nothing(project: Project, user_ids: Collection[int]) -> None:
    pass


class OnMembers:
    changed: Callable[[Project, Collection[int]], None] = staticmethod(_nothing)
    """Called in the transaction in which these people joined or became others, by role, languages or skills."""


def alone_with_members(project: Project) -> None:
    """Nobody else changes who fits which tasks of the project, until this transaction ends.

    Taken before anything of members or pools is touched. Tasks and judgements go on meanwhile.
    """
    # On SQLite the transaction began by taking the write lock.
    if connection.features.has_select_for_update:
        list(Project.objects.select_for_update(no_key=True).filter(pk=project.pk).values("pk"))
