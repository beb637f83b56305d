"""`ampmm simulate` as typed: exit codes, last lines, messages without tracebacks."""

import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from ampmm.cli.simulate import command
from ampmm.simulation.runner import Result

SHORT = ["--model", "classical", "--steps", "20", "--report-interval", "10", "--checkpoint-interval", "10", "--minimize", "2"]


def simulate(*arguments, cwd):
    command = [sys.executable, "-c", "from ampmm.cli import main; main()", "simulate", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True, timeout=120)


def test_run_refuse_and_resume(small_system, tmp_path):
    arguments = [small_system, "--form", "droplet", *SHORT]
    done = simulate(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-2].startswith("done: 20 steps, ") and lines[-2].endswith(" ns/day")
    assert f"runs/{small_system.name}-droplet/trajectory.dcd" in lines[-1]
    again = simulate(*arguments, cwd=tmp_path)
    assert again.returncode == 1 and "--resume" in again.stderr and "Traceback" not in again.stderr
    resumed = simulate(small_system, "--form", "droplet", "--resume", "--time", "0.02", cwd=tmp_path)
    assert resumed.returncode == 0 and "done: 40 steps" in resumed.stdout, resumed.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "runs" / f"{small_system.name}-droplet"
    resumed = simulate("--resume", "-o", folder, "--time", "0.03", cwd=elsewhere)
    assert resumed.returncode == 0 and "done: 60 steps" in resumed.stdout, resumed.stderr
    other = simulate("uracil", "--resume", "-o", folder, "--time", "0.04", cwd=tmp_path)
    assert other.returncode == 1 and f"has the system {small_system}, got " in other.stderr
    form = simulate("--resume", "-o", folder, "--form", "box", "--time", "0.04", cwd=tmp_path)
    assert form.returncode == 1 and "has the form droplet, got box" in form.stderr
    mixed = simulate(small_system, "--form", "droplet", "--resume", "--temperature", "350", cwd=tmp_path)
    assert mixed.returncode == 1 and "got --temperature" in mixed.stderr


def test_config_file_with_options_before_it(small_system, tmp_path):
    settings = {"system": str(small_system), "form": "droplet", "model": "classical", "time": 5.0, "output": "from_file"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    done = simulate("run.yaml", *SHORT[2:], "-o", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stored = yaml.safe_load((tmp_path / "here" / "config.yaml").read_text())
    assert (stored["steps"], stored["output"], stored["model"]) == (20, "here", "classical")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a system's name or a YAML file"),
        (["urasil"], "got 'urasil'"),
        (["missing.yaml"], "found nothing at missing.yaml"),
        (["uracil", "--model", "no-such-model"], "no-such-model"),
        (["uracil", "--time", "1", "--steps", "5"], "got both"),
        (["uracil", "--resume", "-o", "nowhere"], "found no config.yaml in nowhere"),
    ],
)
def test_bad_input_ends_with_a_message(tmp_path, arguments, message):
    failed = simulate(*arguments, cwd=tmp_path)
    assert failed.returncode == 1
    assert message in failed.stderr.replace("\n", " ") and "Traceback" not in failed.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("steps", "noted"), [(49, True), (50, False)])
def test_a_run_too_short_for_a_frame_is_noted(monkeypatch, tmp_path, steps, noted):
    def start(config, progress):
        return Result(folder=tmp_path, trajectory=tmp_path / "a.dcd", step=config.steps, ns_per_day=1.0, interrupted=False)

    monkeypatch.setattr("ampmm.simulation.runner.start", start)
    result = CliRunner().invoke(command, ["uracil", "--steps", str(steps)])
    assert result.exit_code == 0
    assert ("49 steps are fewer than --report-interval 50: trajectory and tables are empty" in result.output) == noted
