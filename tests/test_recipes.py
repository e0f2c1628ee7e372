"""The recipes of the published sizes have the sizes and amounts that the paper states."""

import dataclasses

import pytest

from codeweft.base.config import RECIPES, read_recipe
from codeweft.stages import resolve
from codeweft.train.schedule import sequences_before


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_recipe_can_be_resolved(name: str):
    assert resolve(read_recipe(name)).sections["run"].processes == 1


@pytest.mark.parametrize(
    ("name", "parameters", "fim_rate", "peak"),
    [("lite-16b", 15_706_484_224, 0.5, 4.2e-4), ("full-236b", 235_741_434_880, 0.0, 2.4e-4)],
)
def test_the_published_sizes_have_their_parameters_and_read_as_much(
    name: str, parameters: int, fim_rate: float, peak: float
):
    sections = resolve(read_recipe(name)).sections
    pretrain, sft = sections["pretrain"], sections["sft"]
    assert dataclasses.replace(pretrain.model, vocab_size=102_400).total_parameters == parameters
    assert (sections["tokens"].fim_rate, pretrain.schedule.learning_rate) == (fim_rate, peak)

    def tokens(schedule: object) -> int:
        return sequences_before(schedule.steps, schedule) * schedule.sequence

    assert tokens(pretrain.schedule) == pytest.approx(6e12, rel=1e-4)
    assert tokens(sft.schedule) == pytest.approx(1e9, rel=1e-3)
    assert sft.schedule.batch * sft.schedule.sequence == pytest.approx(1e6, rel=0.05)
    grpo = sections["grpo"]
    assert grpo.prompts * grpo.objective.group == 1024
    assert (grpo.objective.beta, grpo.pace.learning_rate, grpo.updates) == (0.04, 1e-6, 1)
