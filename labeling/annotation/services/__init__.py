"""Writes of this app, by topic: tasks, leases, judgements."""

from labeling.annotation.services.assigning import change_tasks
from labeling.annotation.services.guidelines import begin_guideline
from labeling.annotation.services.judgements import (
    Submission,
    judgement_body,
    revise_judgement,
    submit_and_take_lease,
    submit_judgement,
)
from labeling.annotation.services.leases import (
    MAX_OPEN_LEASES,
    free_expired_leases,
    open_leased_task,
    renew_lease,
    save_draft,
    skip_lease,
    take_lease,
)
from labeling.annotation.services.members import pause_member, reinstate_member
from labeling.annotation.services.pools import (
    change_pool,
    create_pool,
    delete_pool,
    empty_and_delete_pool,
    pool_of_people,
)
from labeling.annotation.services.reports import close_tasks_of, reopen_tasks, report_prompt, settle_report
from labeling.annotation.services.setting_aside import (
    judgements_to_set_aside,
    restore_judgement,
    restore_judgements,
    set_aside_judgements,
)
from labeling.annotation.services.tasks import NewTask, create_tasks, create_tasks_for_prompts

__all__ = [
    "MAX_OPEN_LEASES",
    "NewTask",
    "Submission",
    "begin_guideline",
    "change_pool",
    "change_tasks",
    "close_tasks_of",
    "create_pool",
    "create_tasks",
    "create_tasks_for_prompts",
    "delete_pool",
    "empty_and_delete_pool",
    "free_expired_leases",
    "judgement_body",
    "judgements_to_set_aside",
    "open_leased_task",
    "pause_member",
    "pool_of_people",
    "reinstate_member",
    "renew_lease",
    "reopen_tasks",
    "report_prompt",
    "restore_judgement",
    "restore_judgements",
    "revise_judgement",
    "save_draft",
    "set_aside_judgements",
    "settle_report",
    "skip_lease",
    "submit_and_take_lease",
    "submit_judgement",
    "take_lease",
]
