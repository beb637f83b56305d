"""The droplet of a system folder, ready for sampling."""

from collections.abc import Sequence
from pathlib import Path

from openmm import app, unit

from ampmm.embedding import load_structure, read_charges, select_qm_atoms, warn_of_charge
from ampmm.simulation.droplet import check_wall
from ampmm.simulation.restraints import Restraint, check_atoms
from ampmm.simulation.sampler import Droplet
from ampmm.simulation.system_files import read_system


def load_droplet(system: str | Path, restraints: Sequence[Restraint] = ()) -> Droplet:
    """The droplet of a system: a name under `systems/`, a folder, or its `system.yaml`.

    Args:
        system: name or path.
        restraints: beside those of `system.yaml`; one on the same two atoms takes the place of that one.

    Raises:
        InputError: no such system or file, or an entry of `system.yaml` is missing, or a file it names cannot be read, or
            a restraint is on an atom that is not there.
    """
    files = read_system(str(system), "droplet")
    structure = load_structure(files.topology, files.coordinates)
    replaced = {frozenset(each.atoms) for each in restraints}
    all_restraints = (*(each for each in files.restraints if frozenset(each.atoms) not in replaced), *restraints)
    check_atoms(all_restraints, structure.topology.getNumAtoms())
    classical = structure.create_system(nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=True, removeCMMotion=False)
    qm = select_qm_atoms(structure.topology, files.qm_atoms)
    warn_of_charge(files.qm_charge, float(read_charges(classical, set(qm.tolist()))[qm].sum()), stacklevel=3)
    positions = structure.positions.value_in_unit(unit.nanometer)
    check_wall(files.droplet.wall_radius, structure.topology, qm, positions)
    return Droplet(
        name=files.name,
        topology=structure.topology,
        system=classical,
        positions=positions,
        qm_indices=qm,
        qm_charge=files.qm_charge,
        wall_radius=files.droplet.wall_radius,
        wall_force_constant=files.droplet.wall_force_constant,
        center_force_constant=files.droplet.center_force_constant,
        restraints=all_restraints,
        digest=files.digest,
    )
