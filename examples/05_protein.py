"""A small protein in water with AMP-BMS: python examples/05_protein.py MODEL.pt --pdb 1em7.pdb

MODEL.pt is made by `ampmm import-weights` (docs/amp_bms.md). Without --pdb, the chain of GB1 (855 atoms) is built from
its sequence as a bundle of helices, which is a protein to time and not GB1's fold. The PDB gets hydrogens, TIP3P
water and ions; a crystal structure that lacks atoms has to be mended first (PDBFixer). All of the protein is QM.
"""

import argparse
import resource
from pathlib import Path

from build_protein import write_protein

from ampmm.simulation import config_from, start

GB1 = "MTYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("--pdb", type=Path, help="of the protein alone, or solvated")
parser.add_argument("--sequence", default=GB1, help="one-letter codes, if there is no PDB")
parser.add_argument("--padding", type=float, default=12.0, help="Å of water between the protein and its image")
parser.add_argument("--minimize", type=int, default=50, help="iterations; ten times as many of the classical force field")
parser.add_argument("--temperature", type=float, default=300.0)
parser.add_argument("--steps", type=int, default=100, help="of 0.5 fs")
parser.add_argument("--interval", type=int, default=10, help="steps between reports")
parser.add_argument("--output", type=Path, default=Path("runs/protein"), help="folder; continue with ampmm simulate --resume")
arguments = parser.parse_args()
if (arguments.output / "config.yaml").exists():
    parser.error(f"--output: {arguments.output} holds a run; give another folder, or continue it with ampmm simulate --resume")

pdb = arguments.pdb
if pdb is None:
    arguments.output.mkdir(parents=True, exist_ok=True)
    pdb = arguments.output / "built.pdb"
    write_protein(arguments.sequence, pdb)
settings = {
    "system": str(pdb), "preset": "tip3p", "model": arguments.model, "padding": arguments.padding,
    "minimize": arguments.minimize, "temperature": arguments.temperature, "steps": arguments.steps,
    "report_interval": arguments.interval, "checkpoint_interval": arguments.interval, "output": str(arguments.output),
}  # fmt: skip
result = start(config_from(settings))
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
print(f"{result.step} steps, {result.ns_per_day:.4f} ns/day, {memory:.2f} GiB at most; trajectory: {result.trajectory}")
