"""README and docs say what the program is: commands exist, settings exist, links lead somewhere, stages have pages."""

import re
from pathlib import Path

import pytest

from codeweft import stages
from codeweft.base.config import RECIPES, settings
from codeweft.cli import all_commands

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = all_commands()


def known_settings() -> set[str]:
    """Every dotted setting, without the leading dashes."""
    names: set[str] = set()
    for section in stages.SECTIONS:
        names |= {setting.name.removeprefix("--") for setting in settings(stages.config_class(section), section)}
    return names


SETTINGS = known_settings()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_documentation_exists(page: Path):
    for command in re.findall(r"^\s*(?:\.venv/bin/)?codeweft ([a-z]\S*)", page.read_text(), re.MULTILINE):
        assert command in COMMANDS, f"{page.name}: codeweft {command}"
    for command in re.findall(r"`codeweft ([a-z][\w-]*)", page.read_text()):
        assert command in COMMANDS, f"{page.name}: codeweft {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_in_the_documentation_exists(page: Path):
    sections = "|".join(stages.SECTIONS)
    for name in re.findall(rf"(?:--|`)((?:{sections})\.[a-z_][a-z0-9_.]*[a-z0-9_])(?=[=`\s,)])", page.read_text()):
        if re.search(r"\.(py|toml|json|html|jsonl|md|bin|parquet)$", name):
            continue
        assert name in SETTINGS or any(known.startswith(f"{name}.") for known in SETTINGS), f"{page.name}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_is_short_and_begins_with_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 150
    assert readme.index("make demo") < readme.index("make test")


def test_every_stage_the_server_and_the_sandbox_have_a_page():
    for name in (*stages.BY_NAME, "serve", "sandbox", "tour", "paper-map"):
        assert (ROOT / "docs" / f"{name}.md").exists(), name


def test_every_recipe_resolves():
    from codeweft.base.config import read_recipe

    for path in RECIPES.glob("*.toml"):
        assert stages.resolve(read_recipe(path.stem)).seed


def test_every_make_target_in_the_documentation_exists():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"
