"""What leads say of a file before it is taken in."""

from typing import Any

from django import forms

from labeling.imports.formats import FORMATS, Format
from labeling.imports.mapping import mappable_columns
from labeling.imports.taking import LONGEST

COLUMN, OPTION = "column_", "option_"
MAX_OPTION = 200_000  # a labelling configuration


class FileForm(forms.Form):
    """Only which file: what it is, is found out by looking at it."""

    file = forms.FileField(allow_empty_file=True, label="File", error_messages={"required": "Choose a file first."})


class OriginFields(forms.Form):
    source = forms.CharField(
        required=False, max_length=LONGEST["source"], label="Source", help_text="for rows that don't name one"
    )
    licence = forms.CharField(
        required=False, max_length=LONGEST["licence"], label="Licence", help_text="for rows that don't name one, such as CC-BY-4.0"
    )
    tags = forms.CharField(required=False, max_length=2000, label="Tags", help_text="added to those of each row; commas between them")

    def clean_tags(self) -> list[str]:
        return [tag for tag in (part.strip() for part in self.cleaned_data["tags"].split(",")) if tag]


class CheckForm(OriginFields):
    """The format, and the columns and options that the chosen one has: they change with it."""

    format = forms.ChoiceField(label="Format")

    def __init__(self, *args: Any, chosen: Format | None, columns: list[str], recognised: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        titles = [(name, known.title + (" (recognised)" if name == recognised else "")) for name, known in FORMATS.items()]
        self.fields["format"].choices = titles if chosen else [("", "Choose one…"), *titles]
        self.chosen = chosen
        for name in mappable_columns(chosen.name) if chosen and chosen.mappable else ():
            known = {column.name: column for column in chosen.columns}.get(name)
            if known is None and name not in self.initial.get("mapping", {}):
                continue  # completion_f of a file with two
            self.fields[COLUMN + name] = forms.CharField(
                required=False, max_length=500, help_text=known.help if known else "",
                label=f"{name} (required)" if known and known.required else name,
                widget=forms.Select(choices=self._places(name, columns)),
                initial=self.initial.get("mapping", {}).get(name, name if name in columns else ""),
            )  # fmt: skip
        for option in chosen.options if chosen else ():
            choices = [(choice, choice) for choice in option.choices]
            widget = forms.Textarea(attrs={"rows": 8, "class": "mono", "spellcheck": "false"}) if option.long else None
            given = self.initial.get("options", {}).get(option.name, option.default)
            self.fields[OPTION + option.name] = (
                forms.ChoiceField(choices=choices, required=False, label=option.name, help_text=option.help, initial=given)
                if choices
                else forms.CharField(
                    required=False, max_length=MAX_OPTION, label=option.name, help_text=option.help, initial=given, widget=widget
                )
            )

    def _places(self, name: str, columns: list[str]) -> list[tuple[str, str]]:
        """Columns of the file, and whatever was said before that is none: a path, or several together."""
        said = self.initial.get("mapping", {}).get(name)
        return [("", "–"), *((column, column) for column in dict.fromkeys([*([said] if said else []), *columns]))]

    @property
    def column_fields(self) -> list[Any]:
        return [self[name] for name in self.fields if name.startswith(COLUMN)]

    @property
    def option_fields(self) -> list[Any]:
        return [self[name] for name in self.fields if name.startswith(OPTION)]

    def choices(self) -> dict[str, Any]:
        """What a service takes. A column that goes by its own name needs no mapping; options at their default aren't kept."""
        data = self.cleaned_data
        mapping = {
            name.removeprefix(COLUMN): place
            for name, place in data.items()
            if name.startswith(COLUMN) and place and place != name.removeprefix(COLUMN)
        }
        usual = {option.name: option.default for option in self.chosen.options} if self.chosen else {}
        options = {
            name.removeprefix(OPTION): value
            for name, value in data.items()
            if name.startswith(OPTION) and value and value != usual.get(name.removeprefix(OPTION))
        }
        return {"format": data["format"], "mapping": mapping, "options": options} | {
            name: data[name] for name in ("source", "licence", "tags")
        }
