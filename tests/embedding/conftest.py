"""Systems and models that the embedding's tests share."""

from pathlib import Path

import pytest
from embedding_systems import Solvated, solvated, write_model

from ampmm.export import LoadedModel, load_model


@pytest.fixture(scope="session")
def box() -> Solvated:
    return solvated()


@pytest.fixture(scope="session")
def droplet() -> Solvated:
    return solvated(periodic=False)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "formate.pt", seed=0)


@pytest.fixture(scope="session")
def model(model_file: Path) -> LoadedModel:
    return load_model(model_file)
