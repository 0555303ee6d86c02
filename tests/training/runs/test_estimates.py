"""Estimates as arithmetic: they grow with what is asked for, and hold what real runs took."""

import pytest

from training.runs.catalogue import KINDS, defaults
from training.runs.efforts import EFFORTS, Data, Lengths, effort_of, padded
from training.runs.estimates import BADLY, WELL, Past, Range, estimate, least_bytes, memory_of
from training.runs.suggesting import defaults_for
from training.sampling.model_facts import ModelFacts

SMOLLM2 = ModelFacts(
    n_parameters=134_515_008, n_active=106_203_456, linear_sides=305_280, layers=30, hidden=576, intermediate=1536,
    vocabulary=49_152, heads=9, key_value_heads=3, positions=8192, file_bytes=269_060_552, model_type="llama",
)  # fmt: skip
LLAMA_8B = ModelFacts(
    n_parameters=8_030_261_248, n_active=6_979_588_096, linear_sides=2_621_440, layers=32, hidden=4096, intermediate=14_336,
    vocabulary=128_256, heads=32, key_value_heads=8, positions=8192, file_bytes=16_060_522_496, model_type="llama",
)  # fmt: skip
# Two cores of a Zen 4 processor; and a GPU.
BOX = {
    "cores": 2, "memory_bytes": 25e9, "gpus": [], "bf16": True, "flops": {"float32": 1.1e11, "bfloat16": 4e11},
    "copied_bytes_a_second": 3e10,
}  # fmt: skip
GPU = {
    "cores": 16, "memory_bytes": 128e9, "gpus": [{"name": "NVIDIA H100", "memory_bytes": 80e9}], "bf16": True,
    "flops": {"float32": 5e13, "bfloat16": 7e14}, "copied_bytes_a_second": 2.5e12,
}  # fmt: skip
LENGTHS = Lengths(prompts=(35, 40, 50), texts=(80, 90, 100, 130, 400))
DATA = Data(n_train=140, n_eval=32, lengths=LENGTHS)


def told(kind, model=SMOLLM2, machine=BOX, data=DATA, past=(), **options):
    return estimate(kind, options={**defaults(kind), "reward_models": 1, **options}, model=model, data=data, machine=machine, past=past)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("machine", [BOX, GPU], ids=["processor", "gpu"])
def test_every_kind_of_run_can_be_estimated(kind, machine):
    found = told(kind, machine=machine)
    for figure in (found.seconds, found.memory, found.disk):
        assert 0 < figure.low <= figure.likely <= figure.high < 1e13
    assert set(KINDS) <= set(EFFORTS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("merge", "explain")])
def test_more_rows_take_longer_and_a_larger_model_takes_more_of_everything(kind):
    twice = Data(n_train=280, n_eval=64, lengths=LENGTHS)
    small, more, large = told(kind), told(kind, data=twice), told(kind, model=LLAMA_8B, machine=BOX)
    assert more.seconds.high > small.seconds.high and more.tokens.high > small.tokens.high
    assert large.seconds.low >= small.seconds.low and large.seconds.high > 5 * small.seconds.high
    assert large.memory.low > 5 * small.memory.low


def test_what_options_change():
    usual = told("sft")
    assert told("sft", gradient_checkpointing=True).memory.high < usual.memory.high
    assert told("sft", gradient_checkpointing=True).seconds.high > usual.seconds.high
    assert told("sft", per_device_train_batch_size=16).memory.high > usual.memory.high
    assert told("sft", adapter_rank=0).memory.low > usual.memory.low + 10 * SMOLLM2.n_parameters
    assert told("sft", adapter_rank=0).disk.low > 10 * usual.disk.low
    assert told("sft", model=LLAMA_8B, machine=GPU, quantised_base="4bit").memory.low < told("sft", model=LLAMA_8B, machine=GPU).memory.low - 8e9
    assert told("dpo", max_steps=5).steps == 5 and told("dpo", max_steps=5).seconds.high < told("dpo").seconds.high
    assert told("grpo", max_completion_length=256).seconds.high > 2 * told("grpo").seconds.high
    assert told("ppo", num_iterations=1).steps * 2 == told("ppo").steps


# Seconds and peak memory of the runs were taken on two cores of a Zen 4 processor, of SmolLM2-135M.
@pytest.mark.parametrize(
    ("kind", "data", "options", "seconds"),
    [
        ("dpo", Data(n_train=59, lengths=Lengths((40,), (88,))), {"sample_every_steps": 0, "max_eval_pairs": 1}, 66),
        ("sample", Data(n_train=64, lengths=Lengths((35,))), {"completions_per_prompt": 2, "max_new_tokens": 48}, 19),
        ("reward", Data(n_train=64, lengths=Lengths((40,), (110,))), {}, 55),
    ],
)  # fmt: skip
def test_runs_that_were_timed_lie_within_what_is_told_of_them(kind, data, options, seconds):
    found = told(kind, data=data, **options)
    assert found.seconds.low < seconds + 5 < found.seconds.high, found.seconds


def test_several_processes_take_fewer_steps_and_each_its_memory():
    one, two = told("sft"), told("sft", world=2, processes_here=2)
    assert two.steps == one.steps / 2 and two.memory.low == pytest.approx(2 * one.memory.low)
    gpus = [told("sft", model=LLAMA_8B, machine=GPU, world=n, processes_here=n, adapter_rank=0) for n in (1, 8)]
    assert gpus[1].seconds.high < gpus[0].seconds.high and gpus[1].memory.low == gpus[0].memory.low
    sharded = told("sft", model=LLAMA_8B, machine=GPU, world=8, processes_here=8, is_sharded=True, adapter_rank=0)
    assert sharded.memory.low < gpus[1].memory.low / 4


def test_past_runs_move_and_narrow_the_range():
    raw = told("dpo")
    one = told("dpo", past=[Past(raw.raw_seconds, raw.raw_seconds * 2)])
    assert one.seconds.likely == pytest.approx(2 * raw.seconds.likely)
    assert one.seconds.high / one.seconds.low < raw.seconds.high / raw.seconds.low
    ratios = (1.8, 2.0, 2.1, 2.2)
    many = told("dpo", past=[Past(100, 100 * ratio, 1e9, 2e9) for ratio in ratios])
    assert many.seconds.low == pytest.approx(raw.seconds.likely * 1.8 / 1.25)
    assert many.seconds.high == pytest.approx(raw.seconds.likely * 2.2 * 1.25)
    assert many.memory.likely == pytest.approx(2 * raw.memory.likely) and many.n_past == 4
    assert many.raw_seconds == raw.raw_seconds  # what later runs are held against stays what it was
    assert told("dpo", past=[Past(0, 5)]).seconds == raw.seconds


def test_without_a_machine_there_is_no_time_but_memory_and_disk():
    found = told("sft", machine=None)
    assert found.seconds is None and found.raw_seconds is None
    assert found.memory.low > 0 and found.disk.low > 0


def test_what_cannot_fit_is_told_by_the_least_it_needs():
    tiny_machine = {**BOX, "memory_bytes": 8e9}
    options = {**defaults("sft")}
    assert least_bytes("sft", options=options, model=LLAMA_8B, data=DATA, machine=tiny_machine) > memory_of(tiny_machine)
    assert least_bytes("sft", options=options, model=SMOLLM2, data=DATA, machine=tiny_machine) < memory_of(tiny_machine)
    assert memory_of(GPU) == 80e9


def test_padding_counts_by_the_longest_of_a_batch():
    assert padded([10, 20, 30], 1, longest=None, assumed=WELL) == pytest.approx(20)
    # Of two drawn at random the longer: 10 in 1 of 9 cases, 20 in 3, 30 in 5.
    assert padded([10, 20, 30], 2, longest=None, assumed=WELL) == pytest.approx((10 + 60 + 150) / 9)
    assert padded([10, 20, 900], 1, longest=100, assumed=WELL) == pytest.approx(15)
    assert padded([100], 1, longest=None, assumed=BADLY, uncertainty=0.4) == pytest.approx(140)
    assert Range(1, 4).likely == 2 and Range(0, 4).likely == 2


def test_a_processor_reads_no_padding():
    data, options = Data(n_train=64, lengths=Lengths((20,), (40, 240))), defaults("dpo") | {"group_by_length": False}
    there, here = (effort_of("dpo", options | {"on_cpu": on_cpu}, data, WELL) for on_cpu in (False, True))
    assert here.steps == there.steps and here.passes < 0.65 * there.passes


def test_the_defaults_stay_where_they_fit():
    assert defaults_for("dpo", SMOLLM2, BOX, DATA) == {}
    assert defaults_for("sft", SMOLLM2, None) == {}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "per_device_train_batch_size" in KINDS[kind].options])
def test_a_large_model_gets_smaller_batches_added_up_to_the_same_step(kind):
    machine = {**GPU, "gpus": [{"name": "small", "memory_bytes": 30e9}]}
    found = {name: one.value for name, one in defaults_for(kind, LLAMA_8B, machine, DATA).items()}
    usual = defaults(kind)
    batch, added = found.get("per_device_train_batch_size", usual["per_device_train_batch_size"]), found.get("gradient_accumulation_steps", 1)
    assert batch * added == usual["per_device_train_batch_size"] * usual.get("gradient_accumulation_steps", 1)
    assert batch < usual["per_device_train_batch_size"]
    assert found["learning_rate"] < usual["learning_rate"]
    why = defaults_for(kind, LLAMA_8B, machine, DATA)["per_device_train_batch_size"].why
    assert "30 GB" in why


def test_a_small_model_gets_a_layer_it_has_and_lengths_it_takes():
    tiny = ModelFacts(**{**SMOLLM2.as_dict(), "layers": 3, "positions": 256})
    assert defaults_for("reward_head", tiny, BOX)["layer"].value == 2
    assert defaults_for("sft", tiny, BOX)["max_length"].value == 256
