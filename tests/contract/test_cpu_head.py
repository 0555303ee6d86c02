"""What `training.recipes._cpu` leans on inside TRL and PEFT, and that nothing is computed otherwise."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from trl.trainer import utils  # noqa: E402

from training.recipes import _cpu  # noqa: E402
from training.sampling.heads import keep_head_input_contiguous  # noqa: E402
from training.sampling.tiny_model import build_tiny_model  # noqa: E402

torch.set_num_threads(1)
N_PROMPT, N_TOKENS, N_ROWS = 5, 12, 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_model(folder, seed=1)
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture
def batch():
    ids = torch.randint(5, 400, (N_ROWS, N_TOKENS), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[:, :N_PROMPT] = -100
    labels[1, 8:] = -100  # padding
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def scored(model, batch, monkeypatch) -> tuple[dict, torch.Tensor, list[int]]:
    """(outputs of the fused head, gradient of an embedding, rows that the kernel was given)."""
    rows, kernel = [], utils._ChunkedLogProbFunction

    class Spy:
        @staticmethod
        def apply(hidden, *others):
            rows.append(len(hidden))
            return kernel.apply(hidden, *others)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Spy)
    model = copy.deepcopy(model)
    utils.add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy", "mean_logits"))
    output = model(**batch, fused_lm_head=True)
    (output.log_probs.sum() + 0.1 * output.entropy.sum()).backward()
    found = {name: output[name].detach() for name in ("log_probs", "entropy", "mean_logits")}
    return found, model.get_input_embeddings().weight.grad, rows


def test_a_cpu_scores_the_labelled_positions_only_and_to_the_same_values(tiny, batch, monkeypatch):
    monkeypatch.setattr(utils, "_use_triton", _cpu._ask_for_triton)
    everywhere, gradient, all_rows = scored(tiny, batch, monkeypatch)
    assert all_rows == [N_ROWS * (N_TOKENS - 1)]  # else TRL does it by itself, and `_cpu` can go
    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", utils._ChunkedLogProbFunction)
    _cpu.score_labelled_positions_only()
    compact, compact_gradient, rows = scored(tiny, batch, monkeypatch)
    assert rows[-1] == int((batch["labels"][:, 1:] != -100).sum()) < all_rows[0]
    for name, values in everywhere.items():
        torch.testing.assert_close(compact[name], values, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(compact_gradient, gradient, atol=1e-6, rtol=1e-5)


def test_a_batch_without_labels_has_a_gradient_of_zero(tiny, batch, monkeypatch):
    _cpu.score_labelled_positions_only()
    found, gradient, rows = scored(tiny, batch | {"labels": torch.full_like(batch["labels"], -100)}, monkeypatch)
    assert rows == [0] and not found["log_probs"].any() and not gradient.any()


def adapted(tiny, **options):
    model = get_peft_model(
        copy.deepcopy(tiny).to(torch.bfloat16),
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, **options),
    )
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model.eval()


@torch.no_grad()
def test_adapters_in_the_base_s_type_give_nearly_the_same_logits_and_leave_no_trace(tiny, batch):
    model = adapted(tiny)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    usual = model(**inputs).logits.float()
    with model.disable_adapter():
        base = model(**inputs).logits.float()
    with _cpu.adapters_in_base_type(model):
        quick = model(**inputs).logits.float()
        assert any("forward" in vars(module) for module in model.modules())
    effect = (usual - base).abs().max()
    assert 0 < (quick - usual).abs().max() < 0.05 * effect  # the products are made another way, to nearly the same
    assert torch.equal(model(**inputs).logits.float(), usual)
    assert not any("forward" in vars(module) for module in model.modules() if isinstance(module, _cpu.LoraLinear))


@torch.no_grad()
@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}])
def test_layers_that_are_not_plain_lora_stay_as_they_are(tiny, batch, options):
    model = adapted(tiny, **options)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    usual = model(**inputs).logits
    with _cpu.adapters_in_base_type(model):
        assert torch.equal(model(**inputs).logits, usual)


@torch.no_grad()
def test_with_adapters_off_the_base_alone_answers(tiny, batch):
    model = adapted(tiny)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with model.disable_adapter():
        base = model(**inputs).logits
        with _cpu.adapters_in_base_type(model):
            assert torch.equal(model(**inputs).logits, base)


@torch.no_grad()
def test_the_head_gets_one_block_of_memory_when_only_the_last_token_is_asked_for(tiny, batch):
    model = copy.deepcopy(tiny)
    seen = []
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    model.lm_head.register_forward_hook(lambda module, given, output: seen.append(given[0].is_contiguous()))
    usual = model(**inputs, logits_to_keep=1).logits
    keep_head_input_contiguous(model)
    model.lm_head.register_forward_hook(lambda module, given, output: seen.append(given[0].is_contiguous()))
    torch.testing.assert_close(model(**inputs, logits_to_keep=1).logits, usual)
    assert seen == [False, True, True]  # the first: else transformers does it by itself
