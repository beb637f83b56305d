"""One small model on disk for all tests of this room."""

import pytest
from support.model_files import write_small_model

from ampmm.export import LoadedModel, load_model


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    return write_small_model(tmp_path_factory.mktemp("models") / "small.pt")


@pytest.fixture(scope="session")
def loaded(model_file) -> LoadedModel:
    return load_model(model_file)
