"""Reads what the bench sends: `rank.a=1`, `flags.b=unsafe`, `ratings.a.helpfulness=4`, `marks.a=[{...}]`, ..."""

import json
import math
from typing import Any

from django import forms
from django.http import QueryDict

from labeling.annotation.models import Lease, PromptReport


class SubmissionForm(forms.Form):
    """The fields beside the judgement itself."""

    submission_key = forms.RegexField(r"^[\w.-]{8,80}$")


class SkipForm(forms.Form):
    reason = forms.ChoiceField(choices=Lease.SkipReason.choices, required=False)
    note = forms.CharField(required=False, max_length=300)


class ReportForm(forms.Form):
    reason = forms.ChoiceField(choices=PromptReport.Reason.choices)
    note = forms.CharField(required=False, max_length=2000)


def judgement_body_from(data: QueryDict, *, form: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """The judgement as REST would send it. What is wrong in it stays wrong: the service says so."""
    body = draft_body_from(data, form=form, keys=keys)
    if "ranking" in body:
        body["ranking"] = [row for row in body["ranking"] if row]
    return body


def draft_body_from(data: QueryDict, *, form: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """The same for a judgement that isn't finished: empty tiers between filled ones are kept."""
    body: dict[str, Any] = {}
    if form["ranking"]:
        rows: list[list[str]] = [[] for _ in keys]
        for key in keys:
            rank = _whole(data.get(f"rank.{key}"))
            if rank is not None and 1 <= rank <= len(keys):
                rows[rank - 1].append(key)
        while rows and not rows[-1]:
            rows.pop()
        body["ranking"] = rows
    ratings = {
        key: {
            axis: value for axis in form["ratings"] if (value := _whole(data.get(f"ratings.{key}.{axis}"))) is not None
        }
        for key in keys
    }
    parts: dict[str, dict[str, Any]] = {
        "ratings": {key: found for key, found in ratings.items() if found},
        "flags": {key: flags for key in keys if (flags := data.getlist(f"flags.{key}"))},
        "acceptable": {
            key: value == "yes" for key in keys if (value := data.get(f"acceptable.{key}")) in ("yes", "no")
        },
        "corrections": {
            key: text for key in keys if (text := data.get(f"correction.{key}", "").replace("\r\n", "\n").strip())
        },
        "marks": {key: marks for key in keys if (marks := _marks(data.get(f"marks.{key}")))},
    }
    body.update({name: part for name, part in parts.items() if part})
    if (strength := _whole(data.get("strength"))) is not None:
        body["strength"] = strength
    if demonstration := data.get("demonstration", "").replace("\r\n", "\n").strip():
        body["demonstration"] = demonstration
    if data.get("none_acceptable"):
        body["none_acceptable"] = True
    if rationale := data.get("rationale", "").replace("\r\n", "\n").strip():
        body["rationale"] = rationale
    try:
        seconds = float(data.get("seconds", ""))
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds) and seconds >= 0:
        body["seconds"] = round(min(seconds, 86_400.0), 1)
    return body


def _marks(text: str | None) -> Any:
    """A list of marks as JSON; what can't be read is passed on, for the service to refuse by name."""
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _whole(text: str | None) -> int | None:
    try:
        return int(text) if text and len(text) < 6 else None
    except ValueError:
        return None
