"""What a policy says while it is trained, as events of the run."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.recipes._runlog import RunLog


@dataclass
class ShowArguments:
    """Of recipes that show what the policy says."""

    sample_every_steps: int = field(default=0, metadata={"help": "show greedy completions while training; 0 never"})
    sample_tokens: int = field(default=32, metadata={"help": "length of those"})


def to_show(args: ShowArguments, run_log: RunLog, prompts: Iterable[list[dict]]) -> list[TrainerCallback]:
    """The callback that shows completions, where any are asked for."""
    if not args.sample_every_steps:
        return []
    return [ShowCompletions(run_log, prompts, every_steps=args.sample_every_steps, max_new_tokens=args.sample_tokens)]


class ShowCompletions(TrainerCallback):
    """Every so many steps, what the policy now says to the first two of `prompts` (greedy, so curves compare)."""

    def __init__(
        self, run_log: RunLog, prompts: Iterable[list[dict]], *, every_steps: int, max_new_tokens: int
    ) -> None:
        self.run_log = run_log
        self.prompts = list({repr(prompt): prompt for prompt in prompts}.values())[:2]
        self.every_steps, self.max_new_tokens = every_steps, max_new_tokens

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module,
        processing_class: Any,
        **kwargs: Any,
    ) -> None:
        # With sharded weights every process would have to take part, each step.
        if state.global_step % self.every_steps or args.world_size > 1:
            return
        was_training = model.training
        model.eval()
        encoded = processing_class.apply_chat_template(
            self.prompts,
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
            tokenizer_kwargs={"padding_side": "left"},
        ).to(args.device)
        # In the weights' own type: autocast would convert all of them again for every token.
        with torch.no_grad():
            output = model.generate(
                **encoded,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                pad_token_id=processing_class.pad_token_id,
            )
        model.train(was_training)
        for prompt, ids in zip(self.prompts, output[:, encoded["input_ids"].shape[1] :], strict=True):
            text = processing_class.decode(ids, skip_special_tokens=True)
            self.run_log.event("sample", prompt=prompt, completion=text.strip())
