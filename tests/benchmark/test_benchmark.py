"""`ampmm benchmark`: its regions, its counts, its table."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ampmm.benchmark import exponent, measure_region, parse_region, random_region, table
from ampmm.benchmark.measure import operations
from ampmm.benchmark.regions import MM_SPACING, QM_SPACING, batched
from ampmm.cli.benchmark import command
from ampmm.errors import InputError
from ampmm.models import build_model
from ampmm.nn import native
from ampmm.physics.coulomb import BareCoulomb
from ampmm.physics.evaluators import force_evaluator

CUTOFF, NEAR = 5.0, 6.0
SMALL = {"elements": (1, 6, 7, 8), "width": 16, "n_radial": 6, "n_radial_weights": 4, "multipole_scale": 0.1,
         "polarization_cutoff": NEAR}  # fmt: skip


def small_model():
    torch.manual_seed(0)
    return build_model("amp", SMALL)


def test_a_region_has_its_size_and_no_contacts():
    region = random_region(20, 500)
    qm, mm = region.positions_qm, region.positions_mm
    between = np.linalg.norm(qm[:, None] - qm[None], axis=-1) + 10.0 * np.eye(20)
    assert qm.shape == (20, 3) and mm.shape == (500, 3) and region.charges_mm.shape == (500,)
    assert between.min() > QM_SPACING
    assert np.linalg.norm(mm[:, None] - qm[None], axis=-1).min() > MM_SPACING
    assert abs(region.charges_mm[:498].sum()) < 1e-9


def test_sizes_are_read():
    assert parse_region("ra") == (50, 1000)
    assert parse_region("30x700") == (30, 700) == parse_region("30×700")
    for text in ("caffeine", "1x10", "10x"):
        with pytest.raises(InputError, match="region: expected uracil, ra, sam, or QM atoms"):
            parse_region(text)


def test_a_batch_is_its_frames_one_after_another():
    regions = [random_region(8, 60, seed) for seed in range(3)]
    evaluator = force_evaluator(small_model().double(), BareCoulomb())
    together = evaluator(*batched(regions, CUTOFF, NEAR, dtype=torch.float64))
    alone = [evaluator(*batched([each], CUTOFF, NEAR, dtype=torch.float64)) for each in regions]
    assert torch.allclose(together.energies.total, torch.cat([each.energies.total for each in alone]), rtol=1e-12)
    assert torch.allclose(together.forces_mm, torch.cat([each.forces_mm for each in alone]), rtol=1e-9, atol=1e-12)


def test_operations_of_the_polarization_are_those_of_its_layers():
    region = random_region(10, 200)
    arguments = batched([region], CUTOFF, NEAR)
    none = arguments._replace(polarization=type(arguments.polarization)(*(each[:0] for each in arguments.polarization)))
    evaluator = force_evaluator(small_model(), BareCoulomb())
    found = operations(evaluator, arguments).gigaflop - operations(evaluator, none).gigaflop
    pairs, width, features, order = len(arguments.polarization.centers), 16, 8 * 4 + 6, 3
    layers = features * width + width * width + width * order
    radial_weights, contractions = 6 * 8, (order + 1) ** 2 * (order + 1)
    tensors = 4**order * (order + 1) ** 2
    # Forward and, by the inputs, backward: four operations a weight.
    assert 1e9 * found == pytest.approx(4 * pairs * (layers + radial_weights + contractions + tensors), rel=0.01)


def test_a_product_reads_its_operands_and_writes_its_result():
    class Product(torch.nn.Module):
        def forward(self, a, b):
            return torch.relu(a @ b)

    found = operations(Product(), (torch.ones(30, 20), torch.ones(20, 10)))
    assert 1e9 * found.gigaflop == pytest.approx(2 * 30 * 20 * 10)
    assert 1e9 * found.gigabytes == pytest.approx(4 * (30 * 20 + 20 * 10 + 30 * 10))
    assert found.launches == 2


def test_views_are_no_launches():
    class Views(torch.nn.Module):
        def forward(self, a):
            return torch.exp(a[:2].unsqueeze(0)).reshape(-1)

    assert operations(Views(), (torch.ones(30, 20),)).launches == 1


def test_a_cuda_graph_needs_a_gpu():
    with pytest.raises(InputError, match="cuda-graph needs a GPU, got the device cpu"):
        measure_region(
            "small", [random_region(4, 9, 0)], small_model(), ["cuda-graph"], cutoff=CUTOFF, polarization_cutoff=NEAR
        )


def test_parts_add_up_and_modes_agree_on_what_they_count():
    modes = ["eager", "scripted", *(["native"] if native.available() else [])]
    regions = [random_region(10, 120, seed) for seed in range(2)]
    found = measure_region("small", regions, small_model(), modes, cutoff=CUTOFF, polarization_cutoff=NEAR, rounds=3)
    assert [each.mode for each in found] == modes
    for each in found:
        assert each.frames == 2 and each.n_qm == 10 and each.n_mm == 120
        assert each.coulomb_pairs == 2 * 10 * 120 > each.polarization_pairs > 0
        assert each.total > 0.0 and each.graph > 0.0 and each.coulomb > 0.0 and each.lists > 0.0
        assert each.floor == pytest.approx(1e3 * each.gigaflop / each.rate)
        assert each.traffic == pytest.approx(1e3 * each.gigabytes / each.bandwidth) and each.bandwidth > 0.0
        assert each.gigaflop == found[0].gigaflop and each.launches == found[0].launches > 100
    assert table(found).count("\n") == 1 + len(modes)


def test_exponent():
    sizes = [10, 100, 1000]
    assert exponent(sizes, [3.0 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert np.isnan(exponent([10, 10], [1.0, 2.0]))


def test_the_command_prints_a_table_and_writes_it(tmp_path):
    output = tmp_path / "out"
    arguments = ["6x40", "--mode", "scripted", "--rounds", "1", "--polarization-cutoff", "4", "--device", "cpu"]
    arguments += ["-o", str(output)]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "| 6x40 | scripted |" in result.output
    (row,) = json.loads((output / "benchmark.json").read_text())
    assert row["n_qm"] == 6 and row["n_mm"] == 40 and row["total"] > 0.0
    again = CliRunner().invoke(command, arguments)
    assert isinstance(again.exception, InputError) and "is not overwritten" in str(again.exception)


def test_a_model_gets_a_region_of_its_own_elements(monkeypatch):
    """One that lacks some of H, C, N and O, here as a card alone: the weights are not asked for."""
    card = SimpleNamespace(architecture="amp", hyperparameters=SMALL | {"elements": (1, 6, 8)})
    monkeypatch.setattr("ampmm.export.load_model", lambda model: SimpleNamespace(card=card))
    arguments = ["6x40", "--model", "ra.pt", "--mode", "eager", "--rounds", "1", "--device", "cpu"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "| 6x40 | eager |" in result.output
    assert random_region(5, 20, elements=(1, 6, 8)).numbers.tolist() == [1, 6, 8, 1, 6]


def test_a_sweep_draws_its_plot(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    monkeypatch.setattr("ampmm.cli.benchmark.SWEEPS", {"charges": [(4, 20), (4, 60)], "atoms": []})
    output = tmp_path / "sweep"
    result = CliRunner().invoke(
        command, ["--sweep", "charges", "--mode", "eager", "--rounds", "1", "--device", "cpu", "-o", str(output)],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0 and "time grows as size to the power" in result.output
    assert (output / "charges.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["12x100", "--sweep", "charges"], "--sweep: it has regions of its own"),
        (["12x100", "--cpu-time"], "--cpu-time: adds up the time of all threads"),
        (["twelve"], "region: expected"),
        (["--model", "uracil", "--polarization-kind", "fields"], "--polarization-kind: expected without --model"),
    ],
)
def test_bad_input_is_named(arguments, message):
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, InputError) and message in str(result.exception)
