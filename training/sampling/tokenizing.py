"""Loading the tokenizer of a model that people converse with, or saying in plain words why nobody can."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from training.sampling.fitness import NO_END, NO_TEMPLATE, why_unfit
from training.sampling.model_files import ModelFilesError, check_model


def load_tokenizer(model: str | Path) -> PreTrainedTokenizerBase:
    """With a chat template that works, and a padding token, its end token where it had none. Raises ModelFilesError."""
    name = check_model(model)
    if Path(name).is_dir() and (reason := why_unfit(Path(name), apart=False)):
        raise ModelFilesError(f"{name} can't be used: {reason}")
    tokenizer = AutoTokenizer.from_pretrained(name)
    if tokenizer.chat_template is None:
        raise ModelFilesError(f"{name} can't be used: {NO_TEMPLATE}")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelFilesError(f"{name} can't be used: {NO_END}")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
