"""What people may be in a project, and what each role may do. `tests/security/routes.py` holds every address to it."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class Role(models.TextChoices):
    ANNOTATOR = "annotator", _("annotator")
    REVIEWER = "reviewer", _("reviewer")
    LEAD = "lead", _("lead")
    ENGINEER = "engineer", _("engineer")


# Takes tasks and judges them.
ANNOTATING = {Role.ANNOTATOR, Role.REVIEWER, Role.LEAD}
# Settles what annotators differ on.
REVIEWING = {Role.REVIEWER, Role.LEAD}
# Changes the project, its guideline and who is in it; brings models into production and takes them out of it.
STEERING = {Role.LEAD}
# Sees the console and takes the data out.
READING = {Role.LEAD, Role.ENGINEER, Role.REVIEWER}
# Starts and stops training, freezes snapshots, moves models between candidate and archived; over REST, brings rows in and opens tasks.
TRAINING = {Role.LEAD, Role.ENGINEER}
