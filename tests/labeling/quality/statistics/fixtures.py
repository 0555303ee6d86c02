"""Published examples, and answers of real annotators where this checkout lies beside the folder that holds them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDERS = [Path(os.environ.get("PREFLOOP_FIXTURES", "")), *(up / "shared/data" for up in Path(__file__).parents)]

FLEISS_1971 = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip


def fixture(name: str) -> dict[str, Any]:
    for folder in FOLDERS:
        file = folder / "fixtures" / f"{name}.json"
        if file.is_file():
            return json.loads(file.read_text())
    pytest.skip(f"{name}.json is not here: name the folder that holds fixtures/ in PREFLOOP_FIXTURES")
