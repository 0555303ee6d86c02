"""How many reports wait, for the console's menu."""

from django import template

from labeling.annotation.selectors import n_open_reports

register = template.Library()
register.simple_tag(n_open_reports, name="open_reports")
