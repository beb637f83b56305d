"""Building the native operators: with kernels for a GPU where they can be built, and for the CPU alone elsewhere."""

import importlib.util
import sys

import pytest
import torch
from support.native_library import BUILD
from torch.utils import cpp_extension

from ampmm.nn import native

NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release {}, V{}.88'\n"


@pytest.fixture
def build(monkeypatch, tmp_path):
    """The script as a module; its library would go into an empty folder, and its tools are all there."""
    spec = importlib.util.spec_from_file_location("build", BUILD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("AMPMM_NATIVE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "missing_tools", lambda: "")
    monkeypatch.setattr(sys, "argv", ["build.py"])
    return module


@pytest.fixture
def toolkit(monkeypatch, tmp_path):
    """Pretends a GPU and a torch of CUDA 12.8; the file of nvcc, which is not there yet."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin" / "nvcc"


def test_kernels_need_a_gpu_and_an_nvcc_of_torch_s_cuda(build, toolkit, monkeypatch):
    assert "there is no nvcc (install the CUDA toolkit 12.8" in build.nvcc_missing()
    for version, message in (("13.0", "nvcc is of CUDA 13, torch"), ("12.4", "")):
        toolkit.write_text(NVCC.format(version, version))
        toolkit.chmod(0o755)
        assert (message in build.nvcc_missing()) if message else build.nvcc_missing() == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch finds no GPU" in build.nvcc_missing() and "TORCH_CUDA_ARCH_LIST" in build.nvcc_missing()
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    assert build.nvcc_missing() == ""
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA" in build.nvcc_missing()


@pytest.mark.parametrize("works", ["cuda", "", None])
def test_kernels_that_do_not_compile_leave_the_operators_for_the_cpu(build, monkeypatch, capsys, works):
    tried = []

    def stand_in(target, gpu):
        tried.append(gpu)
        if gpu != works:
            raise RuntimeError("error: no instruction of that name")

    monkeypatch.setattr(build, "nvcc_missing", lambda: "")
    monkeypatch.setattr(build, "build", stand_in)
    assert build.main() == (1 if works is None else 0)
    assert tried == (["cuda"] if works == "cuda" else ["cuda", ""])
    said = capsys.readouterr()
    assert ("again, without kernels for the GPU" in said.err) == (works != "cuda")
    assert ("ampmm runs without them" in said.err) == (works is None)
    assert (native.library_name() in said.out) == (works is not None)
