"""The droplet of a system folder, ready for sampling."""

from pathlib import Path

from openmm import app, unit

from ampmm.embedding import load_structure, select_qm_atoms
from ampmm.simulation.sampling import Droplet
from ampmm.simulation.system_files import read_system


def load_droplet(system: str | Path) -> Droplet:
    """The droplet of a system: a name under `systems/`, a folder, or its `system.yaml`.

    Raises:
        InputError: no such system or file, or an entry of `system.yaml` is missing, or a file it names cannot be read.
    """
    files = read_system(str(system), "droplet")
    structure = load_structure(files.topology, files.coordinates)
    return Droplet(
        name=files.name,
        topology=structure.topology,
        system=structure.create_system(nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=True, removeCMMotion=False),
        positions=structure.positions.value_in_unit(unit.nanometer),
        qm_indices=select_qm_atoms(structure.topology, files.qm_atoms),
        qm_charge=files.qm_charge,
        wall_radius=files.droplet.wall_radius,
        wall_force_constant=files.droplet.wall_force_constant,
        center_force_constant=files.droplet.center_force_constant,
    )
