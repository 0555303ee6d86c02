"""What people may be in a project, and what each role may do."""

from django.db import models


class Role(models.TextChoices):
    ANNOTATOR = "annotator", "annotator"
    REVIEWER = "reviewer", "reviewer"
    LEAD = "lead", "lead"
    ENGINEER = "engineer", "engineer"


ANNOTATING = {Role.ANNOTATOR, Role.REVIEWER, Role.LEAD}
STEERING = {Role.LEAD}
# Sees the console and takes the data out.
READING = {Role.LEAD, Role.ENGINEER, Role.REVIEWER}
# Starts and stops training, freezes snapshots.
TRAINING = {Role.LEAD, Role.ENGINEER}
