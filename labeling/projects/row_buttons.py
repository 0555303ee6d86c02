"""What the buttons of the form builder do where no script does it: the same changes, made to what was sent.

`do` names the button: `preset` fills the form in from the chosen card; `ratings.add`, `flags.add` and `marks.add` add
a row; `flags.up.2`, `flags.down.2` and `flags.drop.2` move or take out the row at place 2, counted from 0.
"""

from django.http import QueryDict

from labeling.projects.feedback import SWITCHES
from labeling.projects.presets import PRESETS, TALK
from labeling.projects.rows import AxisRow

NAME_OF = {"ratings": "axis", "flags": "flags", "marks": "marks"}  # the repeated field that holds the order


def is_button(data: QueryDict) -> bool:
    return bool(data.get("do"))


def after_button(data: QueryDict) -> QueryDict:
    """A copy of what was sent, changed as the button says; an unknown button changes nothing."""
    data = data.copy()
    part, _, rest = data.get("do", "").partition(".")
    action, _, place = rest.partition(".")
    if part == "preset":
        _fill_in(data)
    elif part in NAME_OF:
        order = data.getlist(NAME_OF[part])
        if action == "add":
            data.setlist(f"asks_{part}", ["on"])
            order.append(_new_axis(data) if part == "ratings" else "")
        elif place.isdigit() and int(place) < len(order):
            row = order.pop(int(place))
            if action != "drop":
                order.insert(max(0, int(place) + (1 if action == "down" else -1)), row)
        data.setlist(NAME_OF[part], order)
    return data


def _fill_in(data: QueryDict) -> None:
    """Set the switches as the preset has them. Rows that were typed stay; where there are none it brings its own."""
    form = next((preset.form for preset in (*PRESETS, TALK) if preset.key == data.get("preset")), None)
    if form is None:
        return
    switches = {name: form[name] for name in SWITCHES} | {f"asks_{part}": bool(form[part]) for part in NAME_OF}
    for name, is_on in switches.items():
        data.setlist(name, ["on"] if is_on else [])
    data.setlist("required", form["required"])
    for name in ("rationale", "demonstration"):
        data[name] = form[name]
    for part in ("flags", "marks"):
        if form[part] and not any(data.getlist(part)):
            data.setlist(part, form[part])
    tokens = data.getlist("axis")
    if form["ratings"] and not any(data.get(f"axis.{token}.name") for token in tokens):
        rows = [AxisRow.of(number, name, scale) for number, (name, scale) in enumerate(form["ratings"].items())]
        data.setlist("axis", [_put(data, row) for row in rows])


def _new_axis(data: QueryDict) -> str:
    numbers = [int(token) for token in data.getlist("axis") if token.isdigit() and len(token) < 9]
    return _put(data, AxisRow(str(max(numbers, default=-1) + 1)))


def _put(data: QueryDict, row: AxisRow) -> str:
    values = {key: getattr(row, key) for key in ("name", "low", "high", "help")}
    values |= {f"word.{step}": word for step, word in row.words.items()}
    for key, value in values.items():
        data[f"axis.{row.token}.{key}"] = value
    return row.token
