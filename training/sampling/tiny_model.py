"""A chat model of some 100,000 random weights, built in a moment: for tests and for the demo in CI.

Run: python -m training.sampling.tiny_model --out var/models/tiny
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

VOCABULARY_SIZE = 512
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = [
    "How do I reset my password? Please open the settings page and choose a new one.",
    "Where is my order? Thank you for waiting, it left our warehouse this morning.",
    "Can I get a refund? Yes, within thirty days. No, that is not possible any more.",
    "I am sorry about that. Sure. Thanks for asking! The short answer is: it depends.",
]


def build_tiny_model(out: Path, *, seed: int = 0, hidden_size: int = 64, layers: int = 2) -> Path:
    """Build model and tokenizer into `out`, replacing nothing that is already complete there.

    A two-layer Llama with tied embeddings, a byte-level BPE of 512 tokens and a ChatML template; as in
    SmolLM2, the padding token is the end token. Its weights are random, so it says nothing sensible.
    Returns `out`.
    """
    if (out / "model.safetensors").exists():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / "model"
        tokenizer = _train_tokenizer()
        random_state = torch.get_rng_state()
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=0.08,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model = LlamaForCausalLM(config)
        torch.set_rng_state(random_state)
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        AutoTokenizer.from_pretrained(folder)  # fails here rather than in the first recipe
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    return out


def _train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on a few sentences, so that any text can be encoded."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        TEXTS * 2,
        vocab_size=VOCABULARY_SIZE,
        min_frequency=1,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to build")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    args = parser.parse_args()
    print(build_tiny_model(args.out, seed=args.seed))


if __name__ == "__main__":
    main()
