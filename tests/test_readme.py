"""README says what is there: its script is the example, its commands, files and names exist."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import ampmm
from ampmm.cli import COMMANDS, group

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("systems/**/README.md")])


def blocks(text: str, language: str = "") -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [content for written, content in fenced if written == language]


def ampmm_lines() -> list[tuple[str, list[str]]]:
    """Every `ampmm …` line of every document, without line continuations and comments."""
    found = []
    for document in DOCUMENTS:
        for block in blocks(document.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("ampmm "):
                    found.append((f"{document.name}: {line}", shlex.split(line, comments=True)[1:]))
    return found


def test_the_script_is_the_first_example():
    example = (ROOT / "examples" / "01_add_force.py").read_text(encoding="utf-8")
    docstring, code = example.split('"""\n\n', maxsplit=1)
    assert docstring.startswith('"""') and code in blocks(README, "python")


def test_the_single_frame_is_that_of_the_script(monkeypatch):
    script, frame = blocks(README, "python")[:2]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["01_add_force.py", "uracil", "2"])
    names: dict = {}
    exec(script + frame, names)
    result, n_qm = names["r"], len(names["qm_atoms"])
    assert result.forces_qm.shape == (n_qm, 3) and len(result.forces_mm) == len(names["atoms"]) - n_qm
    assert result.energy == pytest.approx(-64700.0, abs=300.0)


def test_the_two_commands_are_targets():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split()[1] for line in blocks(README)[0].splitlines()]
    assert targets == ["simulate", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_linked_files_exist(document):
    links = re.findall(r"\]\(([^)#]+)\)", re.sub(r"<!--.*?-->", "", document.read_text(encoding="utf-8"), flags=re.DOTALL))
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("words", [pytest.param(words, id=line) for line, words in ampmm_lines()])
def test_commands_are_understood(words, monkeypatch):
    """Parsed with the command's own options; not run."""
    assert words[0] in COMMANDS
    command = group.get_command(click.Context(group), words[0])
    monkeypatch.setattr(command, "callback", lambda **_: None)
    result = CliRunner().invoke(command, words[1:])
    assert result.exit_code == 0, result.output


def test_all_commands_are_named_and_have_help():
    assert "ampmm " + " | ".join(COMMANDS) in README
    for name in COMMANDS:
        result = CliRunner().invoke(group, [name, "--help"])
        assert result.exit_code == 0 and len(result.output.splitlines()) > 5


def test_extras_exist():
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name for names in re.findall(r"\"\.\[([\w,]+)\]\"", README) for name in names.split(",")} <= set(extras)


def test_public_names_used_exist():
    assert set(re.findall(r"\bampmm\.(\w+)\(", README)) <= set(ampmm.__all__)
