"""C10, C13, C17, C31, C32, C34: fields of manifests, through the commands that read them."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import HomeFolder, QuickHome


@pytest.fixture
def home(quick: QuickHome) -> HomeFolder:
    return quick


GREET = 'def run(params):\n    return {"said": "hi"}'


def validate(home: HomeFolder, slug: str) -> tuple[int, str]:
    done = home.run("plugins", "validate", f"plugins/{slug}")
    return done.returncode, done.stdout + done.stderr


@pytest.mark.req("C10")
def test_types_filter_the_list_and_a_workflow_plugin_needs_workflows(home: HomeFolder) -> None:
    home.plugin("bridge", GREET, plugin_type="integration")
    home.plugin("other", GREET, plugin_type="custom")
    home.plugin("flow", GREET, plugin_type="workflow")
    listed = {row["slug"] for row in home.json("plugins", "list", "--type", "integration")}
    assert listed == {"bridge"}
    code, words = validate(home, "flow")
    assert code == 1
    assert "workflows/" in words


CLASS = """
class MyPlugin:
    def __init__(self, config):
        self.greeting = config["greeting"]

    async def initialize(self):
        return True

    async def execute(self, context):
        return {"said": self.greeting}
"""

YAML = """
name: classy
version: 1.0.0
main: main.py
class: {name}
config_schema:
  greeting: {{type: string, default: good day}}
"""


@pytest.mark.req("C13")
def test_a_class_is_made_with_its_config_and_a_wrong_name_is_told(home: HomeFolder) -> None:
    home.write("plugins/classy/main.py", CLASS)
    home.write("plugins/classy/plugin.yaml", YAML.format(name="MyPlugin"))
    assert home.run("plugins", "enable", "classy").returncode == 0
    assert home.json("run", "classy")["result"] == {"said": "good day"}

    home.run("plugins", "disable", "classy")
    home.write("plugins/classy/plugin.yaml", YAML.format(name="YourPlugin"))
    wrong = home.run("plugins", "enable", "classy")
    assert wrong.returncode != 0
    assert "YourPlugin" in wrong.stderr
    assert "main.py" in wrong.stderr


@pytest.mark.req("C17")
def test_flag_and_slug_belong_together(home: HomeFolder) -> None:
    home.plugin("flagged", GREET, enable_external_workflow=True)
    home.plugin("slugged", GREET, workflow_slug="after")
    home.write("workflows/after.yaml", "slug: after\nsteps: [{id: s, emit: came_after}]")
    for slug in ("flagged", "slugged"):
        code, words = validate(home, slug)
        assert code == 0
        assert "warning" in words
    home.run("plugins", "enable", "slugged")
    home.run("run", "slugged")
    assert home.json("runs", "list") == []


@pytest.mark.req("C31", "C32")
def test_tags_and_categories_find_plugins(home: HomeFolder) -> None:
    home.plugin("tagged", GREET, tags=["scheduling", "tasks"])
    home.plugin("plain", GREET, folder="automation")
    assert {row["slug"] for row in home.json("plugins", "list", "--tags", "scheduling")} == {
        "tagged",
        "task-scheduler",  # of the catalogue
    }
    automation = {row["slug"] for row in home.json("plugins", "list", "--category", "automation")}
    assert "plain" in automation
    assert "tagged" not in automation


@pytest.mark.req("C34")
def test_a_command_begins_with_a_slash(home: HomeFolder) -> None:
    home.plugin("slashless", GREET, commands=[{"name": "go", "description": "x", "usage": "go"}])
    code, words = validate(home, "slashless")
    assert code == 1
    assert "commands" in words
    assert "/" in words
