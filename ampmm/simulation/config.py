"""The settings of `ampmm simulate`: a frozen dataclass, read from YAML, that rejects names it does not know."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ampmm.errors import InputError, unknown_name
from ampmm.files import replacing
from ampmm.simulation.system_files import SYSTEM_FILE, known_systems

FORMS: Final = ("box", "droplet")
ENSEMBLES: Final = ("NVT", "NPT", "NVE")
PRECISIONS: Final = ("float32", "float64")
CLASSICAL: Final = "classical"
SHORTEST_STEP: Final = 0.01  # fs
TOPOLOGY_SUFFIXES: Final = (".prmtop", ".parm7", ".top")
STRUCTURE_SUFFIXES: Final = (".pdb", ".cif", ".pdbx", *TOPOLOGY_SUFFIXES)


@dataclass(frozen=True)
class SimulationConfig:
    """Everything that decides a run; it is stored in the run's folder and read again by `--resume`.

    system: a folder name under `systems/`, a path to a folder with a `system.yaml`, or with a preset a structure file: a PDB or
    mmCIF file (a solute, or solvated), or an Amber or GROMACS topology with `coordinates`. form: "box" or "droplet".
    preset: a published set-up of AMP-BMS, "tip3p" or "tip4p-fb", or "". padding: Å of water between a bare solute
    and its nearest image, at least; the box is at least twice as wide.
    qm_atoms: a residue name or an MDTraj selection; "" takes the system's own, of a structure file all but water and ions.
    model: a shipped model's name or a `.pt` file; "" takes the system's own; "classical" leaves the force field as it is.
    backend: "auto", "torchforce" or "python". electrostatics: "auto", or the same by name:
    "reaction-field" in a box, "bare" in a droplet.
    platform: an OpenMM platform or "auto". precision: of the model, and of a CUDA or OpenCL platform. cuda_graphs: whether the
    model's calls are replayed as a CUDA graph, on a GPU.
    ensemble: "NVT", "NPT" or "NVE". temperature: K. pressure: bar. friction: 1/ps. timestep: fs.
    steps: of the whole trajectory, from its start. report_interval and its multiple checkpoint_interval: steps.
    minimize: iterations at most, of the MM atoms around the QM region, 0 for none.
    seed: of velocities, thermostat and barostat.
    distance_slack, force_slack: how far beyond the model's training bounds the QM region may go before the run stops,
    as a fraction of the bound. output: the run's folder; "" means runs/<system>-<form>.
    model_digest, system_digest: of the model's file and the system's, set when a run starts; it is not resumed with others.
    """

    system: str = "uracil"
    form: str = "box"
    model: str = ""
    preset: str = ""
    coordinates: str = ""
    qm_atoms: str = ""
    padding: float = 15.0
    backend: str = "auto"
    electrostatics: str = "auto"
    platform: str = "auto"
    precision: str = "float32"
    cuda_graphs: bool = False
    ensemble: str = "NVT"
    temperature: float = 300.0
    pressure: float = 1.0
    friction: float = 1.0
    timestep: float = 0.5
    steps: int = 2000
    report_interval: int = 50
    checkpoint_interval: int = 200
    minimize: int = 100
    seed: int = 1
    distance_slack: float = 0.1
    force_slack: float = 0.5
    output: str = ""
    model_digest: str = ""
    system_digest: str = ""

    def __post_init__(self) -> None:
        for name in ("temperature", "pressure", "friction", "timestep", "steps", "report_interval", "checkpoint_interval",
                     "padding"):  # fmt: skip
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: expected a positive number, got {getattr(self, name)!r}")
        check_timestep(self.timestep)
        for name in ("minimize", "distance_slack", "force_slack"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: expected 0 or more, got {getattr(self, name)!r}")
        # OpenMM takes 0 for "choose one yourself", which no second run repeats; above 2³¹−1 it fails without a message.
        if not 1 <= self.seed < 2**31:
            raise InputError(f"seed: expected 1 to {2**31 - 1}, got {self.seed}")
        for name, known in (("form", FORMS), ("ensemble", ENSEMBLES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.coordinates and Path(self.system).suffix.lower() not in TOPOLOGY_SUFFIXES:
            raise InputError(
                f"coordinates: expected them with an Amber or GROMACS topology, got {self.coordinates} with {self.system}, "
                "which has its own; leave one of them out"
            )
        if self.preset and self.form == "droplet":
            raise InputError(f"form: expected box for the preset {self.preset!r}, got droplet; it is a periodic set-up")
        if self.pressure != SimulationConfig.pressure and self.ensemble != "NPT":
            raise InputError(f"pressure: expected it with the ensemble NPT alone, got {self.pressure:g} with {self.ensemble}")
        if self.friction != SimulationConfig.friction and self.ensemble == "NVE":
            raise InputError(f"friction: expected it with a thermostat, got {self.friction:g} with NVE; leave it out")
        for name in ("backend", "electrostatics"):
            if self.model == CLASSICAL and getattr(self, name) != "auto":
                raise InputError(
                    f"{name}: expected it with a model, got {getattr(self, name)!r} with {CLASSICAL}; leave it out"
                )
        if self.model == CLASSICAL and self.cuda_graphs:
            raise InputError(f"cuda_graphs: expected it with a model, got it with {CLASSICAL}; leave it out")
        if self.padding != SimulationConfig.padding and Path(self.system).suffix.lower() not in STRUCTURE_SUFFIXES:
            raise InputError(
                f"padding: expected it with a PDB or mmCIF file to solvate, got {self.padding:g} Å with {self.system}, which "
                "has its water; leave it out"
            )
        if self.ensemble == "NPT" and self.form == "droplet":
            raise InputError("ensemble: expected NVT or NVE for a droplet, got NPT; a droplet has no box to scale")
        fitting = ("auto", "bare") if self.form == "droplet" else ("auto", "reaction-field")
        if self.electrostatics not in fitting:
            raise InputError(f"electrostatics: expected {' or '.join(fitting)} for a {self.form}, got {self.electrostatics!r}")
        if self.checkpoint_interval % self.report_interval:
            raise InputError(
                f"checkpoint_interval: expected a multiple of report_interval {self.report_interval}, "
                f"got {self.checkpoint_interval}"
            )

    @property
    def folder(self) -> Path:
        """The run's folder."""
        system = Path(self.system)
        if system.suffix.lower() in STRUCTURE_SUFFIXES:
            name = system.stem
        else:  # also `.`, or the folder's system.yaml
            name = (system.parent if system.name == SYSTEM_FILE else system).resolve().name
        return Path(self.output) if self.output else Path("runs") / f"{name}-{self.form}"


def check_timestep(timestep: float) -> None:
    """Raise `InputError` for a time step (fs) that must be in another unit."""
    if timestep < SHORTEST_STEP:
        raise InputError(f"timestep: expected fs, {SHORTEST_STEP} at least, got {timestep:g}; is this in ps?")


def steps_of_time(time_ps: float, timestep_fs: float) -> int:
    """The number of steps of `timestep_fs` (fs) in `time_ps` (ps), at least one.

    Raises:
        InputError: the time is not a positive number.
    """
    if not 0 < time_ps < float("inf"):
        raise InputError(f"time: expected a positive number of ps, got {time_ps}")
    return max(1, round(1000.0 * time_ps / timestep_fs))


def config_from(settings: Mapping[str, Any], source: str = "settings") -> SimulationConfig:
    """A config from named settings.

    Args:
        settings: field names and values; `time` (ps) may stand for `steps`.
        source: named in error messages.

    Raises:
        InputError: an unknown name (the known ones are listed), a value of the wrong type, or out of range.
    """
    fields = {field.name: field for field in dataclasses.fields(SimulationConfig)}
    known = [*fields, "time"]
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in known:
            told = [each for each in known if not each.endswith("_digest")]  # those are the program's own
            raise InputError(f"{source}: {unknown_name('setting', name, told)}")
        values[name] = _typed(name, value, float if name == "time" else fields[name].type, source)
    if "time" in values:
        if "steps" in values:
            raise InputError(f"{source}: expected steps or time, got both; leave one out")
        timestep = values.get("timestep", SimulationConfig.timestep)
        if not timestep > 0:
            raise InputError(f"timestep: expected a positive number, got {timestep!r}")
        values["steps"] = steps_of_time(values.pop("time"), timestep)
    interval = values.get("report_interval", 0)
    if interval > 0 and "checkpoint_interval" not in values:
        values["checkpoint_interval"] = interval * -(-SimulationConfig.checkpoint_interval // interval)  # the next multiple
    return SimulationConfig(**values)


def _typed(name: str, value: Any, kind: Any, source: str) -> Any:
    """`value` as `kind`, without silent conversions: no bool for a number, no 2.5 for an int."""
    if kind is str and isinstance(value, (str, Path)):
        return str(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind in (int, float) and not isinstance(value, bool):
        try:
            number = float(value)
            if kind is float and number == number:
                return number
            if kind is int and number.is_integer():
                return int(number)
        except (TypeError, ValueError, OverflowError):
            pass
    wanted = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}[kind]
    raise InputError(f"{source}: {name}: expected {wanted}, got {value!r}")


def read_settings(path: Path) -> dict[str, Any]:
    """The settings a YAML file names, unchecked; a system or model that exists beside the file becomes a full path.

    Raises:
        InputError: no such file, or it holds no YAML mapping.
    """
    if not path.is_file():
        raise InputError(f"config: expected a YAML file, found nothing at {path}")
    try:
        settings = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config: {path} is not YAML: {error}") from None
    if not isinstance(settings, dict):
        raise InputError(f"config: expected names and values in {path}, got {type(settings).__name__}")
    for name in ("system", "model", "coordinates"):
        value = settings.get(name)
        beside = path.parent / value if isinstance(value, str) and value else None
        if beside is not None and (beside.exists() if name == "system" else beside.is_file()):
            settings[name] = str(beside.resolve())
    return settings


def with_full_paths(config: SimulationConfig) -> SimulationConfig:
    """The config with full paths of its files, which hold in any folder; names of models stay names."""
    files = {name: Path(getattr(config, name)) for name in ("system", "model", "coordinates") if getattr(config, name)}
    found = {name: str(path.resolve()) for name, path in files.items() if path.is_file() or (path / SYSTEM_FILE).is_file()}
    if "system" not in found and config.system in (known := known_systems()):
        found["system"] = str(known[config.system].resolve())
    return dataclasses.replace(config, **found)


def write_config(config: SimulationConfig, path: Path) -> None:
    """Store a config as YAML, in the order of its fields."""
    with replacing(path) as draft:
        draft.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True))
