"""Who speaks in a conversation: a model of a server the operator named, with its sampling parameters. Pure."""

import random
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

MOST_SPEAKERS = 12
MAX_TOKENS = 4096


@dataclass(frozen=True)
class Speaker:
    """`model` is the server's name for the model, `model_key` ours, which completions carry."""

    server: str
    model: str
    model_key: str
    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int = 256

    @property
    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read_speakers(value: Any, servers: Collection[str]) -> tuple[list[Speaker], str]:
    """The speakers and what is wrong with them (empty: nothing)."""
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        return [], "must be a list of speakers: {server, model, temperature, ...}"
    if not 2 <= len(value) <= MOST_SPEAKERS:
        return [], f"needs 2 to {MOST_SPEAKERS} speakers: each turn compares two"
    speakers = []
    for number, one in enumerate(value, 1):
        speaker, problem = _read_speaker(one, servers)
        if speaker is None:
            return [], f"speaker {number}: {problem}"
        if speaker in speakers:
            return [], f"speaker {number} is the same as an earlier one: change its model or its temperature"
        speakers.append(speaker)
    return speakers, ""


def _read_speaker(one: Mapping[str, Any], servers: Collection[str]) -> tuple[Speaker | None, str]:
    if unknown := sorted(map(str, one.keys() - {"server", "model", "model_key", "temperature", "top_p", "max_tokens"})):
        return None, f"{unknown[0]!r} is not known; known: server, model, model_key, temperature, top_p, max_tokens"
    if one.get("server") not in servers:
        named = ", ".join(sorted(servers)) or "none: the operator names them in PREFLOOP_MODEL_SERVERS"
        return None, f"server must be one of this installation's: {named}"
    model, key = one.get("model"), one.get("model_key") or one.get("model")
    for name, text, longest in (("model", model, 200), ("model_key", key, 120)):
        if not isinstance(text, str) or not 0 < len(text.strip()) <= longest or not text.isprintable():
            return None, f"{name} must be a name of at most {longest} characters"
    numbers = {}
    for name, low, high, default in (("temperature", 0, 2, 0.8), ("top_p", 0, 1, 0.95)):
        number = one.get(name, default)
        if isinstance(number, bool) or not isinstance(number, int | float) or not low <= number <= high:
            return None, f"{name} must be a number from {low} to {high}"
        numbers[name] = float(number)
    if numbers["top_p"] == 0:
        return None, "top_p must be above 0"
    n_tokens = one.get("max_tokens", 256)
    if type(n_tokens) is not int or not 1 <= n_tokens <= MAX_TOKENS:
        return None, f"max_tokens must be a whole number from 1 to {MAX_TOKENS}"
    return Speaker(str(one["server"]), model.strip(), key.strip(), max_tokens=n_tokens, **numbers), ""


def draw_two(speakers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two different speakers in random order, each with a seed. The first is shown as a."""
    chance = random.SystemRandom()
    return [{**one, "seed": chance.getrandbits(31)} for one in chance.sample(speakers, 2)]
