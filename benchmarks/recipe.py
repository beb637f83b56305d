"""Which training settings help: short runs that differ in one setting each, and a table of their validation errors.

    python benchmarks/recipe.py uracil_gfn2.h5 -o runs/recipe --samples 20000
    python benchmarks/recipe.py uracil_gfn2.h5 -o runs/recipe --samples 20000 --only reference batch-8 --seeds 0 1

Every run sees the same number of frames (`--samples`, counted as often as they are visited) of the same split, with the
schedule run to its end. It begins with the weights of the configuration's `start_from`, if there is one; `--set extra_data=[]`
leaves out further files, which are not read here. A run that was stopped goes on where it was, one that is done is not
repeated, so that the same command with more variants or seeds adds rows. The errors are those of the log's last row: mean
absolute, on the validation frames that the configuration checks.
"""

import argparse
import csv
import dataclasses
import statistics
from pathlib import Path
from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {},
    "no-average": {"ema_decay": 0.0},
    "average-0.997": {"ema_decay": 0.997},  # of a run of the configuration's length
    "adam": {"optimizer": "adam", "learning_rate": 0.5},  # rates are factors here
    "muon": {"optimizer": "muon"},
    "muon-rate-double": {"optimizer": "muon", "learning_rate": 2.0},
    "cosine": {"schedule": "cosine"},
    "cosine-4-cycles": {"schedule": "cosine", "cycles": 4},
    "rate-half": {"learning_rate": 0.5},
    "rate-double": {"learning_rate": 2.0},
    "batch-2": {"batch_size": 2},
    "batch-8": {"batch_size": 8},
    "energy-0.02": {"force_weight": 0.98},
    "energy-0.5": {"force_weight": 0.5},
    "mm-forces-25": {"mm_force_weight": 25.0},
    "mm-forces-400": {"mm_force_weight": 400.0},
    "multipoles-1e-4": {"multipole_scale": 1.0e-4},  # hyperparameters of the model, as the cutoffs in Å below
    "polarization-6": {"polarization_cutoff": 6.0},
    "polarization-12": {"polarization_cutoff": 12.0},
    "polarization-30": {"polarization_cutoff": 30.0},
    "fields": {"polarization_kind": "fields"},  # -F in the place of -D
    "fields-12": {"polarization_kind": "fields", "polarization_cutoff": 12.0},
    "clip-10": {"gradient_clip": 10.0},
    "frames-500": {"n_train": 500},  # a learning curve
    "frames-1000": {"n_train": 1000},
    "frames-2000": {"n_train": 2000},
    "frames-4000": {"n_train": 4000},
    "frames-7000": {"n_train": 7000},
    "temporal": {"split": "temporal"},
}
OF_THE_MODEL = ("multipole_scale", "polarization_cutoff", "polarization_kind")
ERRORS = ("validation_energy_mae", "validation_forces_qm_mae", "validation_forces_mm_mae")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="labelled HDF5 file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument(
        "--config", type=Path, default=Path(__file__).resolve().parents[1] / "systems" / "uracil" / "train_quick.yaml"
    )
    parser.add_argument("--samples", type=int, default=20_000, help="frames visited by each run")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of split, weights and order")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="settings for all runs, e.g. n_train=500")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Run what is not done yet, print the table."""
    given = arguments()
    import torch
    import yaml

    from ampmm.data import read_frames
    from ampmm.training import TrainingConfig

    torch.set_num_threads(given.threads)
    common = {name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in given.set)}
    base = dataclasses.replace(TrainingConfig.from_yaml(given.config), data=given.data, **common)
    frames = read_frames(given.data)
    rows = {}
    for name in given.only:
        results = [run(configured(base, name, seed, given.samples), frames, given.output / f"{name}-{seed}", given.device)
                   for seed in given.seeds]  # fmt: skip
        rows[name] = results
        print(f"{name}: {', '.join(f'{value:.4g}' for value in results[-1])}", flush=True)
    print(
        f"\n{given.samples} frames visited by each run, {len(given.seeds)} seed(s), "
        f"{min(base.n_validation, base.n_validation_checked)} validation frames\n"
    )
    print(table(rows))


def configured(base, name: str, seed: int, samples: int):
    """The configuration of one run."""
    changes = dict(VARIANTS[name])
    factor = changes.pop("learning_rate", 1.0)
    of_model = {key: changes.pop(key) for key in OF_THE_MODEL if key in changes}
    changes["hyperparameters"] = {**base.hyperparameters, **of_model}
    steps = max(2, samples // changes.get("batch_size", base.batch_size))
    # The warm-up, the checks and how far back the average of the weights reaches keep their share of the run.
    part = steps / base.steps
    decay = changes.pop("ema_decay", base.ema_decay)
    if decay:
        decay = max(0.0, 1.0 - (1.0 - decay) / part)
    return dataclasses.replace(
        base,
        name=name,
        seed=seed,
        steps=steps,
        learning_rate=factor * base.learning_rate,
        final_learning_rate=factor * base.final_learning_rate,
        warmup_steps=round(part * base.warmup_steps),
        ema_decay=decay,
        validation_interval=max(1, steps // 10),
        checkpoint_interval=max(1, steps // 10),
        **changes,
    )


def run(config, frames, folder: Path, device: str) -> list[float]:
    """Train, or go on, or only read; the errors of the last row and the minutes."""
    import yaml

    from ampmm.training import Trainer, choose_device

    trainer = Trainer(config, frames, folder, choose_device(device))
    if trainer.checkpoint_path.exists():
        trainer.resume()
    else:
        if config.start_from:
            trainer.start_from(config.start_from)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")  # for `ampmm export`
        trainer.save()
    if trainer.step < config.steps:
        trainer.run()
    with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    return [float(last[column]) for column in (*ERRORS, "minutes")]


def table(rows: dict[str, list[list[float]]]) -> str:
    """Means over seeds in Markdown, with the largest deviation from the mean where there are several."""
    lines = ["| setting | energy, kJ/mol | QM forces, kJ/mol/Å | MM forces, kJ/mol/Å | minutes |", "|---|---|---|---|---|"]
    for name, results in rows.items():
        cells = []
        for values in zip(*results, strict=True):
            mean = statistics.mean(values)
            spread = max(abs(value - mean) for value in values)
            cells.append(f"{mean:.3g}" + (f" ± {spread:.2g}" if len(values) > 1 else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
