"""Why a reward model gives a completion its reward: by token, by sentence, and how sure it is.

A head that pools by the mean is linear in the tokens' hidden states, and its shares are exact. For all others integrated
gradients are taken over the embeddings of the completion's tokens, the prompt and the template left as they are. Gradients can
mislead, so leaving out one sentence after the other is the second opinion; it costs one reward a sentence.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy
import torch

from training.sampling.attribution import (
    STEPS,
    Attribution,
    Piece,
    integrated_gradients,
    mean_pooled,
    pieces,
    sentences,
    without_each,
)
from training.sampling.backends import Message
from training.sampling.reward_models import RewardModel, RewardModelFiles, RewardModels

EXACT, GRADIENTS = "exact", "integrated_gradients"
BASELINES = ("average", "end")


@dataclass(frozen=True)
class Sentence:
    """A part of the completion, and how far the reward falls (in logits; negative: rises) when it is left out."""

    text: str
    effect: float


@dataclass(frozen=True)
class Explanation:
    """Why one completion has its reward, all in logits.

    `pieces` joined are the completion; their values add up to `reward` minus `baseline`, up to `gap`. `deviation` is the
    standard deviation of the reward where the model knows it. `sentences` is empty for a completion of one sentence.
    """

    method: str
    reward: float
    baseline: float
    gap: float
    is_complete: bool
    steps: int
    deviation: float | None
    n_tokens: int
    n_tokens_cut: int
    pieces: list[Piece]
    sentences: list[Sentence]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON takes them."""
        return asdict(self)


@dataclass(frozen=True)
class _Read:
    """One completion as the model reads it: all token ids, and which of them are the completion's."""

    ids: list[int]
    start: int  # place of the completion's first token that is read
    spans: list[tuple[int, int]]  # in the completion, of its tokens that are read
    n_cut: int

    @property
    def end(self) -> int:
        return self.start + len(self.spans)


class Explainer:
    """Explains rewards of one reward model, in float32: gradients in bfloat16 would not add up.

    Raises as `RewardModels.add` does; the model is loaded at the first completion.
    """

    def __init__(self, files: RewardModelFiles, *, baseline: str = "average", steps: Sequence[int] = STEPS) -> None:
        if baseline not in BASELINES:
            raise ValueError(f"baseline is {baseline!r}, it must be one of {', '.join(BASELINES)}")
        self.files, self.baseline, self.steps = files, baseline, steps
        self.model: RewardModel = RewardModels(dtype=torch.float32).add(files)

    def explain(
        self, prompt: Sequence[Message], completion: str, *, on_step: Callable[[], None] | None = None
    ) -> Explanation:
        """Why this completion of this prompt has its reward. Raises ValueError for one without text."""
        if not completion.strip():
            raise ValueError("The completion is empty: there are no tokens to explain")
        loaded = self.model.models.load(self.model.key)
        if self.model.head is not None:
            with loaded.without_adapters():
                read, attribution = self._of_head(prompt, completion, on_step)
        else:
            read, attribution = self._of_scored_token(prompt, completion, on_step)
        parts = sentences(completion)
        left = without_each(parts)
        # In one call, so that reward and effects are of the same arithmetic.
        rewards, deviations = self.model.score_with_deviations([prompt] * (1 + len(left)), [completion, *left])
        return Explanation(
            method=GRADIENTS if attribution.steps else EXACT,
            reward=attribution.reward,
            baseline=attribution.baseline,
            gap=attribution.gap,
            is_complete=attribution.is_complete,
            steps=attribution.steps,
            deviation=None if deviations is None else float(numpy.linalg.norm(deviations[0])),
            n_tokens=len(read.spans) + read.n_cut,
            n_tokens_cut=read.n_cut,
            pieces=pieces(completion, read.spans, attribution.values),
            sentences=[
                Sentence(part, rewards[0] - without) for part, without in zip(parts, rewards[1:], strict=True)
            ] if left else [],
        )  # fmt: skip

    def difference(self, prompt: Sequence[Message], first: str, second: str) -> tuple[float, float | None]:
        """The reward of the first completion minus the second's, and its standard deviation where the model knows it."""
        rewards, deviations = self.model.score_with_deviations([prompt] * 2, [first, second])
        spread = None if deviations is None else float(numpy.linalg.norm(deviations[0] - deviations[1]))
        return rewards[0] - rewards[1], spread

    def _of_head(
        self, prompt: Sequence[Message], completion: str, on_step: Callable[[], None] | None
    ) -> tuple[_Read, Attribution]:
        head, loaded = self.model.head, self.model.models.load(self.model.key)
        embedder = head.embedder()
        ids, n = embedder.tokenize(prompt, completion)
        spans = _spans_of(loaded.tokenizer, completion)
        read = _Read(ids, len(ids) - n, spans[:n], len(spans) - n)
        if embedder.pooling == "mean":
            with torch.inference_mode():
                hidden = embedder.hidden(torch.tensor([ids], device=loaded.device))
            return read, mean_pooled(hidden[0, read.start :].cpu().numpy(), head)
        direction = torch.as_tensor(head.features.components @ head.weight, device=loaded.device)
        mean = torch.as_tensor(head.features.mean, device=loaded.device)

        def reward(embeddings: torch.Tensor) -> torch.Tensor:
            return (embedder.hidden(inputs_embeds=embeddings)[:, -1].double() - mean) @ direction

        return read, self._gradients(reward, read, on_step)

    def _of_scored_token(
        self, prompt: Sequence[Message], completion: str, on_step: Callable[[], None] | None
    ) -> tuple[_Read, Attribution]:
        loaded = self.model.models.load(self.model.key)
        weight = loaded.select(self.files)[0].double()
        read = _read_conversation(loaded.tokenizer, prompt, completion, loaded.longest)
        place = loaded.score_place(read.ids)

        def reward(embeddings: torch.Tensor) -> torch.Tensor:
            hidden = loaded.backbone(inputs_embeds=embeddings, use_cache=False).last_hidden_state
            return hidden[:, place].double() @ weight

        return read, self._gradients(reward, read, on_step)

    def _gradients(
        self, reward: Callable[[torch.Tensor], torch.Tensor], read: _Read, on_step: Callable[[], None] | None
    ) -> Attribution:
        """Integrated gradients over the completion's tokens.

        Their baseline is as many times one embedding that says nothing: the average of the vocabulary, or the end token's.
        """
        loaded = self.model.models.load(self.model.key)
        table = loaded.backbone.get_input_embeddings()
        with torch.no_grad():
            whole = table(torch.tensor(read.ids, device=loaded.device))
            if self.baseline == "end":
                nothing = table.weight[loaded.tokenizer.eos_token_id]
            else:
                nothing = table.weight.mean(dim=0)
        before, inputs, after = whole[: read.start], whole[read.start : read.end], whole[read.end :]

        def of_completion(points: torch.Tensor) -> torch.Tensor:
            around = (part.expand(len(points), -1, -1) for part in (before, after))
            return reward(torch.cat([next(around), points, next(around)], dim=1))

        batch_size = max(1, loaded.batch_size * 64 // len(read.ids))  # activations of every layer are kept
        return integrated_gradients(
            of_completion, inputs, nothing.expand_as(inputs), steps=self.steps, batch_size=batch_size, on_step=on_step
        )


def _spans_of(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Where in the text each of its tokens lies."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [tuple(span) for span in encoded["offset_mapping"]]


def _read_conversation(tokenizer: Any, prompt: Sequence[Message], completion: str, longest: int) -> _Read:
    """The whole conversation by the chat template, as reward models score it: too long, it loses its start.

    Raises ValueError for a template that changes the completion's text beyond the space around it.
    """
    messages = [*prompt, {"role": "assistant", "content": completion}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = encoded["input_ids"], encoded["offset_mapping"]
    if ids != tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]:
        raise ValueError("The tokenizer reads the chat template's text in two ways: tokens can't be told apart")
    if (begin := text.rfind(completion)) < 0:
        # Many templates take the space around a message away.
        if (begin := text.rfind(completion.strip())) < 0:
            raise ValueError("The chat template changes the completion's text: tokens can't be told apart")
        begin -= len(completion) - len(completion.lstrip())
    end = begin + len(completion)
    inside = [place for place, (low, high) in enumerate(spans) if low < end and high > begin]
    n_cut = sum(place < len(ids) - longest for place in inside)
    kept = inside[n_cut:]
    cut_before = max(0, len(ids) - longest)
    return _Read(
        ids[cut_before:],
        kept[0] - cut_before,
        [(max(0, spans[place][0] - begin), min(len(completion), spans[place][1] - begin)) for place in kept],
        n_cut,
    )
