"""Samples many completions at once, token by token, and hands out each as it grows.

All completions of one base model advance together, one token a step, whichever adapter each of them uses: on a CPU
two rows cost a step hardly more than one, and two completions of a comparison stream at the same pace.
"""

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache, DynamicLayer

from training.sampling.backends import GenerationRequest
from training.sampling.device import bfloat16_is_fast, pick_device
from training.sampling.model_files import check_adapter
from training.sampling.transformers_backend import end_token_ids, load_policy, sample_nucleus

logger = logging.getLogger(__name__)

BASE = "__base__"  # peft's own name for a row without an adapter
MAX_ADAPTERS = 8
REMEMBERED_PROMPTS = 2
REMEMBERED_TOKENS = 4096


class TooLong(ValueError):
    """Prompt and completion exceed the model's positions; the message says by how much."""


class Decoding:
    """One completion while it is being sampled: the decoder puts pieces in, one other thread takes them out."""

    def __init__(self, request: GenerationRequest, n_prompt_tokens: int) -> None:
        self.request = request
        self.n_prompt_tokens = n_prompt_tokens
        self.n_tokens = 0
        self.finish_reason = ""
        self.error = ""
        self.cancelled = False
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def next_piece(self, seconds: float) -> str | None:
        """The next piece, None at the end. Raises queue.Empty where none came in time."""
        return self._pieces.get(timeout=seconds)

    def __iter__(self) -> Iterator[str]:
        while (piece := self._pieces.get()) is not None:
            yield piece

    def cancel(self) -> None:
        """Nobody wants the rest: its row leaves the batch before the next token."""
        self.cancelled = True

    def _put(self, piece: str) -> None:
        if piece:
            self._pieces.put(piece)

    def _end(self, reason: str, error: str = "") -> None:
        self.finish_reason, self.error = reason, error
        self._pieces.put(None)


@dataclass
class _Row:
    decoding: Decoding
    adapter: str
    prompt: list[int]
    chance: numpy.random.Generator
    tokens: list[int] = field(default_factory=list)
    shown: int = 0  # characters handed out
    settled: int = 0  # tokens before this one are handed out for good

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.tokens)


class _Batch:
    """Rows whose keys and values lie in one cache, padded on the left."""

    def __init__(self, rows: list[_Row], cache: DynamicCache, mask: torch.Tensor) -> None:
        self.rows, self.cache, self.mask = rows, cache, mask

    def add(self, other: "_Batch") -> None:
        width = max(self.mask.shape[1], other.mask.shape[1])
        self._widen(width)
        other._widen(width)
        self.mask = torch.cat([self.mask, other.mask])
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.keys = torch.cat([mine.keys, theirs.keys])
            mine.values = torch.cat([mine.values, theirs.values])
        self.rows += other.rows

    def keep(self, places: list[int]) -> None:
        """Only these rows stay, and no column that all of them pad."""
        index = torch.tensor(places, device=self.mask.device)
        mask = self.mask[index]
        first = int(mask.any(dim=0).int().argmax())
        self.mask = mask[:, first:]
        for layer in self.cache.layers:
            layer.keys = layer.keys[index][:, :, first:]
            layer.values = layer.values[index][:, :, first:]
        self.rows = [self.rows[place] for place in places]

    def _widen(self, width: int) -> None:
        missing = width - self.mask.shape[1]
        if missing:
            self.mask = torch.nn.functional.pad(self.mask, (missing, 0))
            for layer in self.cache.layers:
                layer.keys = torch.nn.functional.pad(layer.keys, (0, 0, missing, 0))
                layer.values = torch.nn.functional.pad(layer.values, (0, 0, missing, 0))


class _Base:
    """One base model in memory, its adapters, and what is being sampled from it."""

    def __init__(self, model: str, dtype: torch.dtype, adapter: str | None = None) -> None:
        self.model: Any
        self.tokenizer: PreTrainedTokenizerBase
        self.model, self.tokenizer = load_policy(model, adapter, dtype=dtype)
        self.device = pick_device()
        self.model.to(self.device).eval()
        self.ends = end_token_ids(self.model, self.tokenizer)
        self.positions: int = getattr(self.model.config, "max_position_embeddings", None) or 2**31
        self.adapters: OrderedDict[str, str] = OrderedDict()  # folder to peft's name for it
        self.n_adapters = 0
        self.lock = threading.Lock()
        self.waiting: list[_Row] = []
        self.batches: list[_Batch] = []
        self.remembered: OrderedDict[tuple[str, tuple[int, ...]], DynamicCache] = OrderedDict()

    @property
    def is_busy(self) -> bool:
        return bool(self.waiting or self.batches)

    # --- adapters ---------------------------------------------------------------------------
    def adapter_name(self, folder: str | None) -> str:
        """Peft's name for the adapter, which is added to the shared base at its first use."""
        if folder is None:
            return BASE
        with self.lock:
            if folder in self.adapters:
                self.adapters.move_to_end(folder)
                return self.adapters[folder]
            from peft import PeftModel  # takes a second, and a base alone needs none of it

            self.n_adapters += 1
            name = f"adapter{self.n_adapters}"
            if isinstance(self.model, PeftModel):
                self.model.load_adapter(check_adapter(folder), adapter_name=name)
            else:
                self.model = PeftModel.from_pretrained(self.model, check_adapter(folder), adapter_name=name)
            self.model.eval()
            self.adapters[folder] = name
            self._forget_oldest_adapter()
            return name

    def _forget_oldest_adapter(self) -> None:
        in_use = {row.adapter for row in self.waiting} | {row.adapter for batch in self.batches for row in batch.rows}
        while len(self.adapters) > MAX_ADAPTERS:
            oldest = next(iter(self.adapters))
            if self.adapters[oldest] in in_use:
                return
            self.model.delete_adapter(self.adapters.pop(oldest))

    # --- one step ---------------------------------------------------------------------------
    @torch.inference_mode()
    def advance(self) -> None:
        """Take in what waits, then give every row its next token."""
        with self.lock:
            arrived, self.waiting = self.waiting, []
            for row in arrived:
                if not row.decoding.cancelled:
                    self._begin(row)
                else:
                    row.decoding._end("cancelled")
            for batch in list(self.batches):
                self._step(batch)

    def fail(self, problem: str) -> None:
        """Everything under way ends with this error."""
        with self.lock:
            rows = self.waiting + [row for batch in self.batches for row in batch.rows]
            self.waiting, self.batches = [], []
            self.remembered.clear()
        for row in rows:
            row.decoding._end("error", problem)

    def _begin(self, row: _Row) -> None:
        cache, logits = self._read_prompt(row)
        self._give(row, logits)
        if row.decoding.finish_reason:
            return
        mask = torch.ones((1, len(row.prompt)), dtype=torch.long, device=self.device)
        new = _Batch([row], cache, mask)
        joins = all(type(layer) is DynamicLayer for layer in cache.layers)  # sliding windows stay by themselves
        if joins and self.batches:
            self.batches[0].add(new)
        else:
            self.batches.append(new)

    def _read_prompt(self, row: _Row) -> tuple[DynamicCache, torch.Tensor]:
        """Keys and values of the prompt and the logits after it.

        Both completions of a comparison have one prompt, and the next turn of a conversation begins with the
        prompt of the last: what was read a moment ago is not read again.
        """
        prompt = tuple(row.prompt)
        cache, n_known = None, 0
        for (adapter, ids), kept in self.remembered.items():
            n_shared = min(len(ids), len(prompt) - 1)
            if adapter == row.adapter and n_shared > n_known and ids[:n_shared] == prompt[:n_shared]:
                cache, n_known = kept, n_shared
        cache = DynamicCache() if cache is None else _copy_of(cache, n_known)
        ids = torch.tensor([row.prompt[n_known:]], device=self.device)
        positions = torch.arange(n_known, len(prompt), device=self.device)[None]
        mask = torch.ones((1, len(prompt)), dtype=torch.long, device=self.device)
        output = self._forward([row.adapter], ids, positions, mask, cache, logits_to_keep=1)
        if len(prompt) <= REMEMBERED_TOKENS and all(type(layer) is DynamicLayer for layer in cache.layers):
            self.remembered[row.adapter, prompt] = _copy_of(output.past_key_values, len(prompt))
            while len(self.remembered) > REMEMBERED_PROMPTS:
                self.remembered.popitem(last=False)
        return output.past_key_values, output.logits[0, -1]

    def _step(self, batch: _Batch) -> None:
        places = [place for place, row in enumerate(batch.rows) if not row.decoding.cancelled]
        for row in batch.rows:
            if row.decoding.cancelled:
                row.decoding._end("cancelled")
        if places and len(places) < len(batch.rows):
            batch.keep(places)
        if places:
            rows = batch.rows
            ids = torch.tensor([[row.tokens[-1]] for row in rows], device=self.device)
            positions = torch.tensor([[row.length - 1] for row in rows], device=self.device)
            batch.mask = torch.nn.functional.pad(batch.mask, (0, 1), value=1)
            output = self._forward([row.adapter for row in rows], ids, positions, batch.mask, batch.cache)
            for row, logits in zip(rows, output.logits[:, -1], strict=True):
                self._give(row, logits)
            places = [place for place, row in enumerate(rows) if not row.decoding.finish_reason]
            if places and len(places) < len(rows):
                batch.keep(places)
        if not places:
            self.batches.remove(batch)

    def _forward(
        self,
        adapters: list[str],
        ids: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        cache: DynamicCache,
        **more: Any,
    ) -> Any:
        if self.adapters:
            more["adapter_names"] = adapters
        return self.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True, **more
        )

    def _give(self, row: _Row, logits: torch.Tensor) -> None:
        """Choose the row's next token, hand out the text that is certain by now, and end the row where it ends."""
        request, decoding = row.decoding.request, row.decoding
        logits = logits.float()
        if request.temperature == 0:
            token = int(logits.argmax())
        else:
            uniform = torch.tensor([row.chance.random()], device=logits.device)
            probabilities = (logits / request.temperature).softmax(dim=-1)[None]
            token = int(sample_nucleus(probabilities, request.top_p, uniform))
        if token in self.ends:
            self._tell(row, to_the_end=True)
            return decoding._end("stop")
        row.tokens.append(token)
        decoding.n_tokens = len(row.tokens)
        is_last = len(row.tokens) >= request.max_new_tokens
        self._tell(row, to_the_end=is_last)
        return decoding._end("length") if is_last else None

    def _tell(self, row: _Row, *, to_the_end: bool) -> None:
        """Hand out what the tokens since the last settled one say; half a character waits for its other half."""
        text = self.tokenizer.decode(row.tokens[row.settled :], skip_special_tokens=True)
        if text.endswith("\ufffd") and not to_the_end:
            return
        row.decoding._put(text[row.shown :])
        row.shown = len(text)
        # Some tokenizers write a token differently at the start of a text, so a few stay as context.
        if len(row.tokens) - row.settled > 64:
            row.settled = len(row.tokens) - 16
            row.shown = len(self.tokenizer.decode(row.tokens[row.settled :], skip_special_tokens=True))


def _copy_of(cache: DynamicCache, n_tokens: int) -> DynamicCache:
    """The first `n_tokens` of a cache of one row."""
    copy = DynamicCache()
    for number, layer in enumerate(cache.layers):
        copy.update(layer.keys[:, :, :n_tokens].clone(), layer.values[:, :, :n_tokens].clone(), number)
    return copy


class Decoder:
    """The models in memory and the one thread that samples from them.

    `keep` base models stay loaded; an adapter shares its base's weights. A seed gives the same completion again as
    far as arithmetic does: see TransformersBackend.
    """

    def __init__(self, *, keep: int = 2, bfloat16: bool | None = None) -> None:
        self.keep = keep
        use_bfloat16 = bfloat16_is_fast() if bfloat16 is None else bfloat16
        self.dtype = torch.bfloat16 if use_bfloat16 else torch.float32
        self.bases: OrderedDict[tuple[str, str | None], _Base] = OrderedDict()
        self._loading = threading.Lock()
        self._work = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)
        self._thread.start()

    def start(self, model: str, adapter: str | None, request: GenerationRequest) -> Decoding:
        """Begin a completion; loads what isn't loaded. Raises TooLong, ModelFilesError, and ValueError."""
        with self._loading:
            base, name = self._load(model, adapter)
            prompt = base.tokenizer.apply_chat_template(
                list(request.messages), add_generation_prompt=True, return_dict=True
            )["input_ids"]
            if len(prompt) + request.max_new_tokens > base.positions:
                raise TooLong(
                    f"The conversation takes {len(prompt)} tokens and its continuation up to "
                    f"{request.max_new_tokens}, more than the model's {base.positions}"
                )
            decoding = Decoding(request, len(prompt))
            chance = numpy.random.Generator(numpy.random.Philox(key=request.seed))
            with base.lock:
                base.waiting.append(_Row(decoding, name, prompt, chance))
        with self._work:
            self._work.notify()
        return decoding

    def load(self, model: str, adapter: str | None) -> None:
        """Have it in memory before it is needed. Raises ModelFilesError."""
        with self._loading:
            self._load(model, adapter)

    def close(self) -> None:
        with self._work:
            self._closed = True
            self._work.notify()
        self._thread.join()
        for base in self.bases.values():
            base.fail("The model server is stopping")

    def _load(self, model: str, adapter: str | None) -> tuple[_Base, str]:
        shares = adapter is None or _can_share(adapter)
        key = (model, None if shares else adapter)
        if key not in self.bases:
            self._make_room()
            self.bases[key] = _Base(model, self.dtype, None if shares else adapter)
        self.bases.move_to_end(key)
        base = self.bases[key]
        return base, base.adapter_name(adapter) if shares else BASE

    def _make_room(self) -> None:
        for key in list(self.bases):
            if len(self.bases) < self.keep:
                return
            if not self.bases[key].is_busy:
                del self.bases[key]

    def _run(self) -> None:
        while True:
            with self._work:
                self._work.wait_for(lambda: self._closed or any(base.is_busy for base in list(self.bases.values())))
                if self._closed:
                    return
            for base in list(self.bases.values()):
                if base.is_busy:
                    try:
                        base.advance()
                    except Exception as error:
                        logger.exception("sampling failed")
                        base.fail(f"Sampling failed: {type(error).__name__}")


def _can_share(adapter: str) -> bool:
    """Whether peft can run the adapter beside others in one batch: plain LoRA can."""
    from peft import LoraConfig, PeftConfig

    config = PeftConfig.from_pretrained(check_adapter(adapter))
    return (
        isinstance(config, LoraConfig)
        and not config.use_dora
        and config.bias == "none"
        and not config.modules_to_save
        and not getattr(config, "trainable_token_indices", None)
    )


__all__: Sequence[str] = ("Decoder", "Decoding", "TooLong")
