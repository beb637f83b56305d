"""Every constant and conversion of the package, each with its source.

Inside ampmm: lengths in Å, energies in kJ/mol, charges in e, forces in kJ/mol/Å, dipoles in e·Å.
OpenMM's nm are converted in `ampmm.export.runtime`, atomic units in `ampmm.reference`.
"""

from typing import Final

# CODATA 2018
AVOGADRO: Final = 6.02214076e23  # 1/mol, exact
BOLTZMANN_J_PER_K: Final = 1.380649e-23  # exact
ANGSTROM_PER_BOHR: Final = 0.529177210903
KJ_PER_MOL_PER_HARTREE: Final = 2625.4996394799

# The Coulomb constant of the OpenMM force fields (AMP paper and AMP-BMS use the same digits).
COULOMB_CONSTANT: Final = 1389.35457644382  # kJ·Å/(mol·e²)

# Atomic units as the published AMP-BMS code has them; its weights were trained with these digits.
ANGSTROM_PER_BOHR_AMP_BMS: Final = 0.5291772105638411
KJ_PER_MOL_PER_HARTREE_AMP_BMS: Final = 627.509474 * 4.184

GAS_CONSTANT: Final = AVOGADRO * BOLTZMANN_J_PER_K / 1000.0  # kJ/(mol·K)

ANGSTROM_PER_NM: Final = 10.0
NM_PER_ANGSTROM: Final = 0.1

# Gradient: Hartree/Bohr to kJ/mol/Å
KJ_PER_MOL_PER_ANGSTROM_PER_ATOMIC_UNIT: Final = KJ_PER_MOL_PER_HARTREE / ANGSTROM_PER_BOHR
