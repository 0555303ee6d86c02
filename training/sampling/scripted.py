"""A backend without a model, for tests and for trying a project out."""

from collections.abc import Iterator, Mapping, Sequence

from training.sampling.backends import Generation, GenerationRequest

OPENINGS = ("Thank you for asking.", "Sure.", "Let me see.", "Good question.")
BODIES = (
    "The short answer is yes.",
    "It depends on your plan.",
    "Please try it once more.",
    "I am not certain.",
)


class ScriptedBackend:
    """Answers from a table by the text of the last message, else with a sentence chosen by the seed."""

    def __init__(self, answers: Mapping[str, Sequence[str]] | None = None) -> None:
        self.answers = answers or {}

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generation]:
        """Yield the results in the order asked for; the same seed always gives the same text."""
        for request in requests:
            choices = self.answers.get(request.messages[-1]["content"])
            if choices:
                content = choices[request.seed % len(choices)]
            else:
                opening = OPENINGS[request.seed % len(OPENINGS)]
                content = f"{opening} {BODIES[request.seed // len(OPENINGS) % len(BODIES)]}"
            words = content.split()
            yield Generation(
                key=request.key,
                content=" ".join(words[: request.max_new_tokens]),
                n_tokens=min(len(words), request.max_new_tokens),
                finished=len(words) <= request.max_new_tokens,
            )
