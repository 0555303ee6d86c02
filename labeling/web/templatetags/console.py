"""How the console writes numbers, times and kinds of annotator."""

from datetime import datetime
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import now

register = template.Library()

STATE_BADGES = {
    "done": ("badge-good", "✓"),
    "production": ("badge-good", "★"),
    "running": ("badge-accent", "▸"),
    "freezing": ("badge-accent", "▸"),
    "waiting": ("", "…"),
    "open": ("badge-accent", "▸"),
    "queued": ("", "…"),
    "candidate": ("", "○"),
    "paused": ("badge-warn", "‖"),
    "active": ("badge-good", "✓"),
    "qualifying": ("badge-accent", "▸"),
    "cancelled": ("badge-warn", "–"),
    "archived": ("", "–"),
    "failed": ("badge-bad", "✕"),
    "disabled": ("badge-bad", "✕"),
    "delivered": ("badge-good", "✓"),
    "sending": ("badge-accent", "▸"),
}


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


@register.filter
def figure(value: Any, unit: str = "") -> SafeString:
    """`0.71 ±0.04 · 240 pairs`, what follows the value in grey; a lopsided interval is written out.

    Takes {"value", "low", "high", "n", "method"}; an undefined figure shows a dash and says why on hover.
    """
    if not isinstance(value, dict) or value.get("value") is None:
        reason = (value or {}).get("method", "") if isinstance(value, dict) else ""
        return format_html('<span class="fig muted" title="{}">–</span>', reason)
    number, low, high, n = value["value"], value.get("low"), value.get("high"), value.get("n")
    if low is None or high is None:
        spread = ""
    else:
        below, above = number - low, high - number
        if max(below, above) > 1.25 * min(below, above) + 0.005:
            spread = f"{_number(low)} to {_number(high)}"
        else:
            spread = f"±{_number((high - low) / 2)}"
    count = f"{n:,} {unit}".strip() if n is not None and unit else f"n {n:,}" if n is not None else ""
    note = " · ".join(part for part in (spread, count) if part)
    return format_html(
        '<span class="fig" title="{}"><span class="fig-value">{}</span> <span class="fig-note">{}</span></span>',
        f"95 % interval {_number(low, 3)} to {_number(high, 3)}. {value.get('method', '')}"
        if low is not None
        else value.get("method", ""),
        _number(number),
        note,
    )


@register.filter
def decimals(value: Any, digits: int = 2) -> str:
    """With a true minus; a dash for what is missing."""
    return "–" if value is None or value == "" else _number(float(value), digits)


@register.filter
def interval_plot(value: Any, ends: str = "0,1,0.5") -> SafeString:
    """A dot with its 95 % interval on a line from the first to the second end, a rule at the third; 120 by 16."""
    if not isinstance(value, dict) or value.get("value") is None:
        return SafeString("")
    start, end, rule = map(float, ends.split(","))

    def x(number: float) -> str:
        return f"{4 + 112 * min(1.0, max(0.0, (number - start) / (end - start))):.1f}"

    low = value["value"] if value.get("low") is None else value["low"]
    high = value["value"] if value.get("high") is None else value["high"]
    return format_html(
        '<svg class="interval-plot" viewBox="0 0 120 16" width="120" height="16" aria-hidden="true">'
        '<line class="ends" x1="4" x2="116" y1="8" y2="8"/><line class="rule" x1="{}" x2="{}" y1="1" y2="15"/><line class="whisker" x1="{}" x2="{}" y1="8" y2="8"/>'
        '<circle cx="{}" cy="8" r="3.5"/></svg>',
        x(rule), x(rule), x(low), x(high), x(value["value"]),
    )  # fmt: skip


@register.filter
def state_badge(state: str, label: str = "") -> SafeString:
    style, mark = STATE_BADGES.get(state, ("", "·"))
    return format_html(
        '<span class="badge {}"><span aria-hidden="true">{}</span>{}</span>', style, mark, label or state
    )


@register.filter
def annotator_kind(kind: str) -> SafeString:
    """A badge for whoever is no person; nothing for people."""
    words = {"simulated": "simulated", "model": "model as judge", "imported": "imported"}
    return format_html('<span class="badge badge-warn">{}</span>', words[kind]) if kind in words else SafeString("")


@register.filter
def thousands(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)


@register.filter
def short(value: Any) -> str:
    """A number with as many digits as one can use."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}".replace("-", "−")


@register.filter
def per_cent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


@register.filter
def ago(at: datetime | None, other: datetime | None = None) -> SafeString:
    """`3 min ago`, with the exact time on hover."""
    if at is None:
        return SafeString("–")
    seconds = max(0.0, ((other or now()) - at).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            text = f"{int(seconds // size)} {unit} ago"
            break
    else:
        text = "just now"
    return format_html('<time datetime="{}" title="{}">{}</time>', at.isoformat(), f"{at:%Y-%m-%d %H:%M} UTC", text)


@register.filter
def elapsed(start: datetime | None, end: datetime | None = None) -> float | None:
    """Seconds from start to end, or to now."""
    return None if start is None else max(0.0, ((end or now()) - start).total_seconds())


@register.filter
def first_words(messages: Any, length: int = 140) -> str:
    """The last user message of a prompt on one line."""
    text = messages[-1]["content"] if messages else ""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


@register.filter
def get(mapping: Any, key: Any) -> Any:
    return mapping.get(key) if isinstance(mapping, dict) else None


@register.inclusion_tag("console/_field.html")
def field(bound: Any) -> dict[str, Any]:
    """A form field with its label, help and errors."""
    widget = bound.field.widget
    return {
        "field": bound,
        "is_check": getattr(widget, "input_type", "") == "checkbox"
        and not getattr(widget, "allow_multiple_selected", False),
        # Options have defaults, all of them: saying so at each is noise.
        "says_optional": not bound.field.required and not bound.name.startswith(("option_", "column_")),
        "is_group": getattr(widget, "allow_multiple_selected", False)
        and getattr(widget, "input_type", "") == "checkbox",
    }
