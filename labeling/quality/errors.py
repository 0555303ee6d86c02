class BadGold(Exception):
    """A gold task can't be made or changed as asked. `fields` names what is wrong."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{key}: {value}" for key, value in fields.items()))
