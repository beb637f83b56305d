"""The list of what is to be measured on a GPU: its commands exist as they are written there."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from ampmm.cli.benchmark import command

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "on_gpu.py"


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_commands_and_their_options_exist(tmp_path):
    lines = run("-o", str(tmp_path / "gpu"), "--dry-run").stdout.splitlines()
    assert len(lines) >= 10 and not (tmp_path / "gpu").exists()
    for line in lines:
        words = shlex.split(line)
        words = words[words.index("python") + 1 :]
        if words[:2] == ["-m", "ampmm.cli"]:
            assert words[2] == "benchmark"
            result = CliRunner().invoke(command, [*words[3:], "--help"])
            assert result.exit_code == 0, line
            assert {word for word in words if word.startswith("--")} <= set(result.output.split()), line
        elif words[:2] == ["-m", "pytest"]:
            assert all((ROOT / word).exists() for word in words if word.startswith("tests/")), line
        else:
            text = (ROOT / words[0]).read_text(encoding="utf-8")
            assert all(f'"{word}"' in text for word in words if word.startswith("--")), line


def test_the_training_step_runs():
    command = [sys.executable, str(ROOT / "benchmarks" / "training_step.py"), "--systems", "uracil", "--rounds", "1"]
    result = subprocess.run([*command, "--batch-size", "1"], capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "| uracil |" in result.stdout, result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU")
def test_without_a_gpu_nothing_is_begun(tmp_path):
    result = run("-o", str(tmp_path / "gpu"))
    assert result.returncode == 1 and "finds no GPU here" in result.stderr and not (tmp_path / "gpu").exists()
