"""Reward models as one scorer: heads on cached features, LoRA adapters and whole models, one base in memory for all on it."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from training.sampling.backends import Message
from training.sampling.device import bfloat16_is_fast, pick_device
from training.sampling.model_files import ModelFilesError, check_adapter, check_model
from training.sampling.reward_axes import read_axes
from training.sampling.reward_head import CONFIG_FILE, RewardHead

HEAD, ADAPTER, WHOLE = "head", "adapter", "whole"
SCORE_WEIGHT = "score.weight"
ENSEMBLE_FILE = "reward_heads.safetensors"
BATCH_SIZE = 16


@dataclass(frozen=True)
class RewardModelFiles:
    """What lies in a reward model's folder: `kind` is head, adapter or whole; `base` the folder or name of its base."""

    folder: Path
    kind: str
    base: str


def inspect_reward_model(folder: str | Path, *, base: str | None = None) -> RewardModelFiles:
    """Tell which kind of reward model lies in `folder` without loading weights.

    `base` says where the base model is now, if it has moved. Raises ModelFilesError for a folder that is missing,
    holds no reward model, or whose base model is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelFilesError(f"No reward model at {folder}. It is the `model/` folder of a finished reward run.")
    if (folder / CONFIG_FILE).is_file():
        named = _read_json(folder / CONFIG_FILE).get("base_model", "")
        kind = HEAD
    elif (folder / "adapter_config.json").is_file():
        check_adapter(folder)
        config = _read_json(folder / "adapter_config.json")
        if config.get("task_type") != "SEQ_CLS":
            raise ModelFilesError(f"{folder} holds an adapter that is no reward model (task_type is not SEQ_CLS).")
        named, kind = config.get("base_model_name_or_path", ""), ADAPTER
    else:
        check_model(folder)
        config = _read_json(folder / "config.json")
        n_labels = len(config.get("id2label") or ()) or config.get("num_labels")
        if n_labels != 1 or not any("SequenceClassification" in name for name in config.get("architectures") or ()):
            raise ModelFilesError(f"{folder} holds a model that gives no scalar reward: train one with recipes.reward.")
        return RewardModelFiles(folder, WHOLE, str(folder))
    try:
        return RewardModelFiles(folder, kind, check_model(base or named))
    except ModelFilesError as error:
        raise ModelFilesError(f"The base model of the reward model in {folder} is not there: {error}") from None


@dataclass
class _Base:
    """One base model and what hangs on it."""

    name: str
    heads: list[tuple[str, RewardHead]] = field(default_factory=list)
    adapters: list[RewardModelFiles] = field(default_factory=list)


class RewardModels:
    """Scores completions with several reward models; those on one base share its weights.

    Models are added first; the bases are loaded at the first score. On a CPU with native bfloat16 and on GPUs that
    have it, bases are held in it; adapters and heads stay in float32.
    """

    def __init__(self, *, batch_size: int = BATCH_SIZE, dtype: torch.dtype | None = None) -> None:
        self.batch_size = batch_size
        self.device = pick_device()
        self.dtype = dtype or (torch.bfloat16 if bfloat16_is_fast() else torch.float32)
        self._bases: dict[str, _Base] = {}
        self._loaded: dict[str, LoadedBase] = {}

    def add(self, files: RewardModelFiles, axis: str = "") -> "RewardModel":
        """Take one more, or one `axis` of it.

        Raises ValueError where a head was fitted on another base model than the one given, and ModelFilesError where
        there is no such axis.
        """
        score = axis_weight(files.folder, axis) if axis else None
        # By what the path leads to: a base reached over a link is the same one.
        key = str(Path(files.base).resolve()) if Path(files.base).is_dir() else files.base
        if key in self._loaded:
            raise RuntimeError("Reward models must be added before the first score")
        base = self._bases.setdefault(key, _Base(files.base))
        head = None
        if files.kind == HEAD:
            head = RewardHead.load(files.folder, base_model=files.base)
            base.heads.append((str(files.folder), head))
            # Its embedder checks the hash of the base: now, not after an hour of training.
            head.embedder()
        elif files.kind == ADAPTER and files not in base.adapters:
            base.adapters.append(files)
        return RewardModel(self, key, files, head, None if head else read_ensemble(files.folder), score)

    def n_loaded(self) -> int:
        """How many base models are in memory."""
        return len(self._loaded)

    def load(self, key: str) -> "LoadedBase":
        """The base of this key, with all that hangs on it, in memory."""
        if key not in self._loaded:
            self._loaded[key] = LoadedBase(self._bases[key], self)
        return self._loaded[key]


@dataclass(frozen=True)
class RewardModel:
    """One reward model among those of a `RewardModels`."""

    models: RewardModels
    key: str
    files: RewardModelFiles
    head: RewardHead | None
    ensemble: "Ensemble | None" = None
    axis_weight: torch.Tensor | None = None  # of the one axis that is asked for, float32 of shape (1, hidden)

    @property
    def tells_uncertainty(self) -> bool:
        """Whether `score_with_deviations` knows how unsure the rewards are."""
        return self.head is not None or self.ensemble is not None

    def score(self, prompts: Sequence[Sequence[Message]], completions: Sequence[str]) -> list[float]:
        """The reward of each completion of its prompt, in logits: a difference of 1 means preferred 73 % of the time."""
        loaded = self.models.load(self.key)
        if self.head is not None:
            with loaded.without_adapters():
                return self.head.score(prompts, completions)
        return loaded.project(self.files, prompts, completions, self._select(loaded))[:, 0].tolist()

    def score_with_deviations(
        self, prompts: Sequence[Sequence[Message]], completions: Sequence[str]
    ) -> tuple[list[float], numpy.ndarray | None]:
        """The rewards, and a matrix of shape (completions, any) that says how sure they are; None where nothing does.

        The norm of its row is the standard deviation of that reward, and the norm of two rows' difference that of the
        rewards' difference. Of a head it comes from the Laplace posterior, of an ensemble from its heads.
        """
        loaded = self.models.load(self.key)
        if self.head is not None:
            with loaded.without_adapters():
                embeddings = self.head.embed(prompts, completions)
            return self.head.score_embeddings(embeddings).tolist(), self.head.deviations(embeddings)
        mean = self._select(loaded)
        if self.ensemble is None:
            return loaded.project(self.files, prompts, completions, mean)[:, 0].tolist(), None
        weights = torch.cat([mean, self.ensemble.weight.to(mean.device)])
        rewards = loaded.project(self.files, prompts, completions, weights)
        return rewards[:, 0].tolist(), self.ensemble.deviations(rewards[:, 1:])

    def _select(self, loaded: "LoadedBase") -> torch.Tensor:
        """Switch to this model; returns its score head, or that of its axis."""
        whole = loaded.select(self.files)
        return whole if self.axis_weight is None else self.axis_weight.to(whole.device)


@dataclass(frozen=True)
class Ensemble:
    """Score heads on one body. Their mean is the model's own head, so that it loads wherever reward models do.

    `weight` is float32 of shape (heads, hidden); `offset` (heads,) is each head's mean reward on the training completions:
    heads that only differ by a constant rank alike.
    """

    weight: torch.Tensor
    offset: torch.Tensor

    def deviations(self, rewards: numpy.ndarray) -> numpy.ndarray:
        """As `RewardModel.score_with_deviations` gives them, of the heads' rewards, both of shape (completions, heads)."""
        centred = rewards - self.offset.double().numpy()
        return (centred - centred.mean(axis=1, keepdims=True)) / numpy.sqrt(max(1, rewards.shape[1] - 1))

    def save(self, folder: Path) -> None:
        """Write the heads beside the model they belong to."""
        save_file({"weight": self.weight.contiguous(), "offset": self.offset.contiguous()}, folder / ENSEMBLE_FILE)


def read_ensemble(folder: Path) -> Ensemble | None:
    """The heads that lie beside a reward model; None where it has a single one."""
    if not (folder / ENSEMBLE_FILE).is_file():
        return None
    tensors = load_file(folder / ENSEMBLE_FILE)
    return Ensemble(tensors["weight"].float(), tensors["offset"].float())


class LoadedBase:
    """A base model with its reward adapters, and the embedders of its heads hooked to the same layers."""

    def __init__(self, base: _Base, models: RewardModels) -> None:
        self.device, self.batch_size = models.device, models.batch_size
        self.tokenizer = AutoTokenizer.from_pretrained(check_model(base.name))
        model = AutoModelForSequenceClassification.from_pretrained(base.name, num_labels=1, dtype=models.dtype)
        self.score_weights: dict[Path, torch.Tensor] = {}
        self.adapter_names: dict[Path, str] = {}
        self.whole_weight = model.score.weight.detach().float().to(self.device)
        backbone = getattr(model, model.base_model_prefix)
        self.config = model.config.get_text_config()
        self.longest = getattr(self.config, "max_position_embeddings", None) or 2**31
        if not base.adapters and base.heads:
            highest = max(head.config["layer"] for _, head in base.heads)
            backbone.layers = backbone.layers[:highest]  # the layers above would be computed for nothing
        for _, head in base.heads:
            head.embedder().attach(backbone, self.tokenizer, self.device)
        self.peft = None
        if base.adapters:
            from peft import PeftModel  # takes a second, and heads need no adapter

            for number, files in enumerate(base.adapters):
                name = f"reward_{number}"
                if self.peft is None:
                    self.peft = PeftModel.from_pretrained(model, str(files.folder), adapter_name=name)
                else:
                    self.peft.load_adapter(str(files.folder), adapter_name=name)
                self.adapter_names[files.folder] = name
                self.score_weights[files.folder] = score_weight(files.folder).to(self.device)
        self.backbone = backbone
        model.to(self.device).eval().requires_grad_(False)

    def without_adapters(self) -> AbstractContextManager:
        """The base as it is, for the heads."""
        return self.peft.disable_adapter() if self.peft is not None else nullcontext()

    def select(self, files: RewardModelFiles) -> torch.Tensor:
        """Switch to the adapter of `files`, if it has one; returns its score head, float32 of shape (1, hidden)."""
        if files.kind != ADAPTER:
            return self.whole_weight
        self.peft.set_adapter(self.adapter_names[files.folder])
        return self.score_weights[files.folder]

    def score_place(self, ids: Sequence[int]) -> int:
        """Where transformers reads the score: at the last token which is not the padding token."""
        return max((place for place, token in enumerate(ids) if token != self.config.pad_token_id), default=0)

    @torch.inference_mode()
    def project(
        self, files: RewardModelFiles, prompts: Sequence[Sequence[Message]], completions: Sequence[str], weights: torch.Tensor
    ) -> numpy.ndarray:
        """Rewards of shape (completions, heads) by the adapter or whole model of `files`, which `select` chose.

        `weights` has shape (heads, hidden); the scalar products are taken in float32.
        """
        texts = [
            self.tokenizer.apply_chat_template(
                [*prompt, {"role": "assistant", "content": completion}], return_dict=True
            )["input_ids"][-self.longest :]
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        rewards = numpy.zeros((len(texts), len(weights)))
        order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), index))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            width = max(len(texts[row]) for row in rows)
            # Padding on the right is never seen by the tokens before it; its id only has to exist.
            ids = torch.tensor([texts[row] + [0] * (width - len(texts[row])) for row in rows], device=self.device)
            mask = torch.tensor(
                [[1] * len(texts[row]) + [0] * (width - len(texts[row])) for row in rows], device=self.device
            )
            hidden = self.backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            for number, row in enumerate(rows):
                rewards[row] = (weights @ hidden[number, self.score_place(texts[row])].float()).cpu().numpy()
        return rewards


def score_weight(folder: Path) -> torch.Tensor:
    """The score head that a LoRA reward adapter carries, float32 of shape (1, hidden). Raises ModelFilesError."""
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            if name.endswith(SCORE_WEIGHT):
                return tensor.float()
    raise ModelFilesError(f"{folder} holds a LoRA adapter without its score head: train it again with recipes.reward.")


def axis_weight(folder: Path, axis: str) -> torch.Tensor:
    """The score head of one axis, float32 of shape (1, hidden). Raises ModelFilesError."""
    if (axes := read_axes(folder)) is None:
        raise ModelFilesError(f"{folder} holds a reward model with one reward alone: it has no axis {axis!r}.")
    return axes.head(axis)


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFilesError(f"{path} is no JSON: {error}") from None
