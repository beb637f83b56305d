"""Reading back, and copying, Systems that hold a TorchForce.

openmmtorch 1.5 was built against an OpenMM whose XML reader returns strings in another way: with OpenMM 8.6 its writer
works and its reader crashes the process. So the TorchForces are read here, from the XML that OpenMM writes, and the rest
of the System by OpenMM. Forces of other kinds, PythonForce included, need none of this.
"""

import copy
import xml.etree.ElementTree as ElementTree

import openmm

from ampmm.embedding.backends import BACKENDS, FORCE_NAME, import_openmmtorch
from ampmm.embedding.shifted_reaction_field import MM_COULOMB_NAME, NativeReactionField
from ampmm.errors import BackendError, InputError
from ampmm.export import FixedShapePotential, Potential, load_scripted, use_simple_executor

_TORCH_FORCE = "TorchForce"
# openmmtorch writes no names: they are known from what the module is.
_NAMES = {
    Potential.__name__: FORCE_NAME,
    FixedShapePotential.__name__: FORCE_NAME,
    NativeReactionField.__name__: MM_COULOMB_NAME,
}


def serialize_system(system: openmm.System) -> str:
    """The System as OpenMM's XML; forces hold their models.

    Raises:
        BackendError: the System holds a PythonForce whose evaluator cannot be pickled.
    """
    try:
        return openmm.XmlSerializer.serialize(system)
    except openmm.OpenMMException as error:
        raise BackendError(
            f"system: cannot be written to XML ({error}); an evaluator must be picklable for that (defined at the top of a "
            "module, without open files or library handles); write the System before the force is added instead"
        ) from error


def deserialize_system(xml: str) -> openmm.System:
    """The System of an XML text of `serialize_system` or of OpenMM's own XmlSerializer, TorchForces included.

    A PythonForce in it is unpickled, which runs code: read only files you trust.

    Raises:
        InputError: the text is no System.
        BackendError: it holds a TorchForce and openmmtorch does not load here.
        ModelFileError: it was written with native operators, which are not available here.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise InputError(f"xml: expected a System written by serialize_system, got a text that is no XML ({error})") from None
    forces = root.find("Forces")
    if root.tag != "System" or forces is None:
        raise InputError(f"xml: expected a System written by serialize_system, got <{root.tag}>")
    elements = list(forces)
    forces.clear()
    system = openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))
    for element in elements:
        system.addForce(_read_force(element))
    return system


def copy_force(force: openmm.Force) -> openmm.Force:
    """A copy of any force; `copy.deepcopy` crashes on a TorchForce.

    Raises:
        BackendError: the force is a CustomCVForce with a TorchForce in it.
    """
    if force_kind(force) == _TORCH_FORCE:
        new = _read_torch_force(ElementTree.fromstring(openmm.XmlSerializer.serialize(force)))
        new.setName(force.getName())  # openmmtorch writes no names
        return new
    if isinstance(force, openmm.CustomCVForce):
        inner = [force.getCollectiveVariable(k) for k in range(force.getNumCollectiveVariables())]
        if any(force_kind(each) == _TORCH_FORCE for each in inner):
            raise BackendError(
                f"system: the CustomCVForce {force.getName()!r} holds a TorchForce, which OpenMM and openmmtorch cannot copy "
                'and crash on; make that force with backend="python"'
            )
    return copy.deepcopy(force)


def force_kind(force: openmm.Force) -> str:
    """The class of a force; OpenMM hands out plugin forces as plain `Force`."""
    kind = type(force).__name__
    if kind == "Force":
        return ElementTree.fromstring(openmm.XmlSerializer.serialize(force)).get("type", kind)
    return kind


def _read_force(element: ElementTree.Element) -> openmm.Force:
    if element.get("type") == _TORCH_FORCE:
        return _read_torch_force(element)
    return openmm.XmlSerializer.deserialize(ElementTree.tostring(element, encoding="unicode"))


def _read_torch_force(element: ElementTree.Element) -> openmm.Force:
    reason = BACKENDS["torchforce"].missing()
    if reason:
        raise BackendError(f"xml: holds a TorchForce; {reason}")
    openmmtorch = import_openmmtorch()
    use_simple_executor()
    archive = bytes.fromhex(element.get("encodedFileContents", ""))
    module = load_scripted(archive)
    force = openmmtorch.TorchForce(module)
    force.setForceGroup(int(element.get("forceGroup", "0")))
    force.setName(element.get("name", _NAMES.get(module.original_name, _TORCH_FORCE)))
    force.setUsesPeriodicBoundaryConditions(element.get("usesPeriodic") == "1")
    force.setOutputsForces(element.get("outputsForces") == "1")
    for parameter in element.iterfind("GlobalParameters/Parameter"):
        force.addGlobalParameter(parameter.get("name"), float(parameter.get("default")))
    for parameter in element.iterfind("ParameterDerivatives/Parameter"):
        force.addEnergyParameterDerivative(parameter.get("name"))
    for item in element.iterfind("Properties/Property"):
        force.setProperty(item.get("name"), item.get("value"))
    return force
