"""The order of rows and prompts in TRL's trainers, the same for a resumed run as for an uninterrupted one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset as Rows
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl.trainer.utils import RepeatSampler


class SampleByEpoch(Sampler):
    """A RepeatSampler whose order follows from the seed and the epoch alone.

    TRL's own draws each epoch's order from where the last one left its generator, which no checkpoint holds: a run
    resumed in its second epoch would see the prompts in the order of the first.
    """

    def __init__(self, sampler: RepeatSampler, *, seed: int, epoch: Callable[[], int]) -> None:
        self.sampler, self.seed, self.epoch = sampler, seed, epoch

    def __iter__(self) -> Iterator[int]:
        if self.sampler.shuffle:
            self.sampler.generator.manual_seed(self.seed + self.epoch())
        yield from self.sampler

    def __len__(self) -> int:
        return len(self.sampler)


class ExactOrder:
    """To put before GRPOTrainer or RLOOTrainer: prompts in an order that survives a resume.

    Leans on `_get_train_sampler` and on `RepeatSampler.generator` of TRL 1.16, and on `state.epoch` being the number
    of the epoch that begins when its first prompt is asked for.
    """

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Any:
        sampler = super()._get_train_sampler(dataset)
        return SampleByEpoch(sampler, seed=self.args.seed, epoch=lambda: int(self.state.epoch or 0))


@dataclass
class GroupByLength:
    """The setting that `ByLength` reads, to put before one of TRL's configurations."""

    group_by_length: bool = True


class ByLength:
    """To put before a trainer of rows: batches of rows of about the same length, so that little is padding.

    Which rows meet and in what order the batches come is drawn anew for each epoch, from the seed and the epoch alone.
    Rows to evaluate on keep their own order. Leans on TRL 1.16 holding a row's tokens in columns that end in `_ids`, a
    prompt's before one or two of completions, and on `state.epoch` as `ExactOrder` does.
    """

    def _get_train_sampler(self, train_dataset: Rows | None = None) -> Any:
        if not self.args.group_by_length:
            return super()._get_train_sampler(train_dataset)
        return GroupedByEpoch(
            # With the columns that a model doesn't take, which the loader's copy has lost.
            token_counts(self.train_dataset),
            self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
            seed=self.args.seed,
            epoch=lambda: int(self.state.epoch or 0),
        )


class GroupedByEpoch(Sampler):
    """Places of rows in batches of `batch_size` rows of about the same length, the longest batch first."""

    def __init__(self, lengths: list[int], batch_size: int, *, seed: int, epoch: Callable[[], int]) -> None:
        self.generator = torch.Generator()
        self.sampler = LengthGroupedSampler(batch_size, lengths=lengths, generator=self.generator)
        self.seed, self.epoch = seed, epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch())
        yield from self.sampler

    def __len__(self) -> int:
        return len(self.sampler)


def token_counts(rows: Rows) -> list[int]:
    """Tokens of the longest text of each row: of a pair, its prompt and the longer completion."""
    names = [name for name in rows.column_names if name.endswith("_ids")]
    counts = []
    for batch in rows.select_columns(names).iter(batch_size=1000):
        sizes = {name: [len(ids) for ids in batch[name]] for name in names}
        prompts = sizes.pop("prompt_ids", [0] * len(batch[names[0]]))
        counts += [prompt + max(others) for prompt, *others in zip(prompts, *sizes.values(), strict=True)]
    return counts
