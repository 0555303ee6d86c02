"""What PPO leans on inside TRL, one test for each: the name of a failing test is what moved."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import dataclasses
import inspect
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from trl.trainer.utils import FusedCausalLMOutput, RepeatSampler  # noqa: E402

from training.recipes._order import ExactOrder  # noqa: E402
from training.sampling.tiny_model import build_tiny_model  # noqa: E402

torch.set_num_threads(1)


def rewarded(completions: list, **columns: object) -> list[float]:
    return [float(number) for number in range(len(completions))]


class Spy(trl.GRPOTrainer):
    """GRPOTrainer as it is, which notes what goes through the places PPO builds on."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        self.calls: list[dict] = []
        self.seen: dict[str, object] = {}
        super().__init__(*args, **kwargs)

    def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        call = {"rows": input_ids.shape[0], "keep": logits_to_keep, "grad": torch.is_grad_enabled(), "outputs": []}

        def watched(**inputs: object) -> object:
            assert inputs["fused_lm_head"] is True
            call["outputs"].append(model(**inputs))
            return call["outputs"][-1]

        result = super()._get_per_token_logps_and_entropies(
            watched, input_ids, attention_mask, logits_to_keep, *args, **kwargs
        )
        call["result"] = result
        self.calls.append(call)
        return result

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.seen["rewards"] = rewards
        return rewards

    def _generate_and_score_completions(self, inputs):
        rollout = super()._generate_and_score_completions(inputs)
        self.seen["rollout"], self.seen["calls_for_rollout"] = dict(rollout), len(self.calls)
        shape = rollout["completion_ids"].shape
        # Row and place are told from the number, so that what is shuffled and split along can be recognised.
        rollout["marks"] = rollout["completion_ids"].float() + 0.5
        rollout["tool_mask"] = rollout["completion_mask"].clone()
        rollout["tool_mask"][:, 0] = 0
        rollout["advantages"] = torch.arange(shape.numel(), dtype=torch.float32).reshape(shape) / 10
        return rollout

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        self.seen.setdefault("losses", []).append((loss.detach(), inputs, self.calls[-1]["result"][0].detach()))
        self.seen["entropies"] = list(self._metrics["train"]["entropy"])
        return loss


@pytest.fixture(scope="module")
def spy(tmp_path_factory: pytest.TempPathFactory) -> Spy:
    """Two steps on two halves of one rollout of eight completions, two epochs."""
    folder = build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    out: Path = tmp_path_factory.mktemp("out")
    config = trl.GRPOConfig(
        output_dir=str(out), beta=0.0, loss_type="bnpo", num_generations=2, per_device_train_batch_size=4,
        steps_per_generation=2, num_iterations=2, max_steps=4, max_completion_length=6, learning_rate=1e-3,
        gradient_checkpointing=False, report_to=[], use_cpu=True, bf16=False, save_strategy="no",
    )  # fmt: skip
    trainer = Spy(
        model=AutoModelForCausalLM.from_pretrained(folder),
        args=config,
        reward_funcs=[rewarded],
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": f"Number {n}?"}]} for n in range(8)]),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.train()
    return trainer


def test_1_log_probabilities_come_from_one_forward_a_chunk_in_order(spy: Spy) -> None:
    parameters = list(inspect.signature(trl.GRPOTrainer._get_per_token_logps_and_entropies).parameters)
    assert parameters[1:6] == ["model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"]
    call = spy.calls[0]
    assert (call["rows"], len(call["outputs"])) == (8, 2)
    kept = torch.cat([output.log_probs[:, -call["keep"] :] for output in call["outputs"]])
    assert torch.equal(kept, call["result"][0])


def test_2_the_fused_forward_gives_a_dataclass_of_shape_tokens_less_one(spy: Spy) -> None:
    output = spy.calls[0]["outputs"][0]
    assert isinstance(output, FusedCausalLMOutput) and dataclasses.is_dataclass(FusedCausalLMOutput)
    assert "token_values" not in {field.name for field in dataclasses.fields(FusedCausalLMOutput)}
    states = []
    handle = spy.model.base_model.register_forward_hook(lambda module, inputs, given: states.append(given))
    ids = torch.tensor([[5, 6, 7, 8]])
    given = spy.model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, fused_lm_head=True)
    handle.remove()
    assert states[0].last_hidden_state.shape[:2] == (1, 4)
    assert given.log_probs.shape == (1, 3)
    # And aligned: the hidden state before a token, through the head, gives that token's log-probability.
    logits = spy.model.get_output_embeddings()(states[0].last_hidden_state[:, :-1])
    expected = logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    torch.testing.assert_close(given.log_probs, expected, atol=1e-5, rtol=1e-5)


def test_3_a_rollout_has_these_keys_and_carries_further_tensors_along(spy: Spy) -> None:
    rollout = spy.seen["rollout"]
    assert {"prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "old_per_token_logps"} <= set(rollout)
    assert "ref_per_token_logps" not in rollout  # beta is 0
    assert spy.seen["calls_for_rollout"] == 1 and spy.calls[0]["grad"] is False
    assert torch.equal(rollout["old_per_token_logps"], spy.calls[0]["result"][0])
    for _, inputs, _ in spy.seen["losses"]:
        assert inputs["completion_ids"].shape[0] == 4
        assert torch.equal(inputs["marks"], inputs["completion_ids"] + 0.5)


def test_4_rewards_are_those_of_all_rows_by_function(spy: Spy) -> None:
    assert torch.equal(spy.seen["rewards"], torch.arange(8.0)[:, None])


def test_5_the_loss_is_the_mean_over_the_masked_tokens_of_the_minibatch(spy: Spy) -> None:
    from training.recipes._ppo_math import clipped_policy_loss

    for loss, inputs, log_probs in spy.seen["losses"]:
        mask = inputs["completion_mask"] * inputs["tool_mask"]
        expected, _ = clipped_policy_loss(
            log_probs, inputs["old_per_token_logps"], inputs["advantages"], mask, clip=spy.args.epsilon
        )
        # Two batches are sampled in one go, and one makes a step.
        torch.testing.assert_close(loss * spy.current_gradient_accumulation_steps, expected, atol=1e-5, rtol=1e-5)
    # The last step had another policy than the rollout.
    assert not torch.equal(spy.seen["losses"][-1][2], spy.seen["losses"][-1][1]["old_per_token_logps"])


def test_6_beta_is_kept_beside_the_arguments_and_metrics_are_lists(spy: Spy) -> None:
    assert spy.beta == 0.0 and spy.ref_model is None
    assert spy.seen["entropies"] and all(isinstance(value, float) for value in spy.seen["entropies"])
    everywhere, at_the_start = inspect.getsource(trl.GRPOTrainer), inspect.getsource(trl.GRPOTrainer.__init__)
    assert everywhere.count("args.beta") == at_the_start.count("args.beta") > 0


def test_7_one_completion_a_prompt_is_refused_by_the_configuration_alone() -> None:
    with pytest.raises(ValueError, match="at least 2 generations per prompt"):
        trl.GRPOConfig(output_dir="unused", num_generations=1, use_cpu=True, bf16=False)


def test_8_the_order_of_prompts_comes_from_a_sampler_with_a_generator(spy: Spy) -> None:
    sampler = trl.GRPOTrainer._get_train_sampler(spy)
    assert isinstance(sampler, RepeatSampler)
    first = list(sampler)
    sampler.generator.manual_seed(spy.args.seed)
    assert list(sampler) == first != list(sampler)
    assert "_get_train_sampler" in vars(ExactOrder) and hasattr(trl.RLOOTrainer, "_get_train_sampler")
