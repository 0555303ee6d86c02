"""Recipes start without Django, and every configuration file fits its recipe."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from trl import TrlParser

from training.recipes import (
    distill,
    dpo,
    evaluate,
    explain,
    gguf,
    grpo,
    kto,
    merge,
    ppo,
    reward,
    reward_head,
    rloo,
    sample,
    sft,
)
from training.sampling.device import has_accelerator

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {
    "distill": (distill.DistillArguments, distill.DistillSettings),
    "dpo": (dpo.DPOArguments, dpo.DPOSettings),
    "evaluate": (evaluate.EvaluateArguments,),
    "explain": (explain.ExplainArguments,),
    "gguf": (gguf.GGUFArguments,),
    "grpo": (grpo.OnlineArguments, grpo.GRPOSettings),
    "kto": (kto.KTOArguments, kto.KTOSettings),
    "merge": (merge.MergeArguments,),
    "ppo": (ppo.PPOArguments, ppo.PPOSettings),
    "reward": (reward.RewardArguments, reward.RewardSettings),
    "reward_head": (reward_head.RewardHeadArguments,),
    "rloo": (rloo.OnlineArguments, rloo.RLOOSettings),
    "sample": (sample.SampleArguments,),
    "sft": (sft.SFTArguments, sft.SFTSettings),
}
CONFIGS = sorted(path for kind in RECIPES for path in (ROOT / "config" / "recipes").glob(f"{kind}_smollm2*.yaml"))


def test_recipes_and_sampling_import_without_django() -> None:
    modules = [f"training.recipes.{kind}" for kind in RECIPES]
    modules += [
        f"training.sampling.{path.stem}"
        for path in (ROOT / "training" / "sampling").glob("*.py")
        if path.stem != "__init__"
    ]
    code = (
        f"import sys; sys.modules['django'] = None; import {', '.join(modules)}; assert 'labeling' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configuration_loads_and_opens_with_its_command(path: Path, tmp_path: Path) -> None:
    kind = path.stem.split("_smollm2")[0]
    command = f"# python -m training.recipes.{kind} --config config/recipes/{path.name} --run_dir "
    assert any(line.startswith(command) for line in path.read_text().splitlines()[:4])
    args, *settings = TrlParser(RECIPES[kind]).parse_args_and_config(
        ["--config", str(path), "--run_dir", str(tmp_path)]
    )
    assert args.run_dir == tmp_path
    for setting in settings:
        assert setting.use_cpu is not has_accelerator()
        assert setting.save_total_limit >= 2


def test_there_is_a_configuration_for_every_recipe_here() -> None:
    assert {path.stem.split("_smollm2")[0] for path in CONFIGS} == set(RECIPES)


def test_accelerate_configurations_are_mappings_with_a_command() -> None:
    paths = sorted((ROOT / "config" / "accelerate").glob("*.yaml"))
    assert [path.stem for path in paths] == ["ddp", "fsdp2", "zero2", "zero3"]
    for path in paths:
        text = path.read_text()
        assert f"accelerate launch --config_file config/accelerate/{path.name}" in text
        assert yaml.safe_load(text)["num_machines"] == 1
