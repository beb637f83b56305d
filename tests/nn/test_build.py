"""Building the native operators: with kernels for a GPU where they can be built, and for the CPU alone elsewhere."""

import importlib.util
import os
import sys

import pytest
import torch
from support.native_library import BUILD
from torch.utils import cpp_extension

from ampmm.nn import native, native_on_gpu

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
    """Pretends an H100 and a torch of CUDA 12.8; the file of nvcc, which is not there yet."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(native_on_gpu, "gpus", lambda: [(9, 0)])
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
    monkeypatch.setattr(native_on_gpu, "gpus", list)
    assert "torch finds no GPU" in build.nvcc_missing() and "TORCH_CUDA_ARCH_LIST" in build.nvcc_missing()
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "9.0")
    assert build.nvcc_missing() == ""
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "Hopper")
    assert "expected numbers, as in 9.0 or 8.0;9.0+PTX, got 'Hopper'" in build.nvcc_missing()
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA" in build.nvcc_missing()


@pytest.mark.parametrize("works", ["cuda-sm90", "cpu", None])
def test_kernels_that_do_not_compile_leave_the_operators_for_the_cpu(build, toolkit, monkeypatch, capsys, works):
    tried = []

    def stand_in(target, variant):
        tried.append(variant)
        if variant != works:
            raise RuntimeError("error: no instruction of that name")

    monkeypatch.setattr(build, "nvcc_missing", lambda: "")
    monkeypatch.setattr(build, "build", stand_in)
    assert build.main() == (1 if works is None else 0)
    assert tried == (["cuda-sm90"] if works == "cuda-sm90" else ["cuda-sm90", "cpu"])
    said = capsys.readouterr()
    assert ("again, without kernels for the GPU" in said.err) == (works != "cuda-sm90")
    assert ("ampmm runs without them" in said.err) == (works is None)
    assert works is None or native.library_name(works) in said.out


def test_a_library_for_the_cpu_is_not_up_to_date_where_a_gpu_has_come(build, toolkit, monkeypatch, capsys):
    built = []

    def stand_in(target, variant):
        target.parent.mkdir(exist_ok=True)
        target.touch()
        built.append(variant)

    monkeypatch.setattr(build, "build", stand_in)
    for nvcc in ("no GPU yet", "", ""):
        monkeypatch.setattr(build, "nvcc_missing", lambda nvcc=nvcc: nvcc)
        assert build.main() == 0
    assert built == ["cpu", "cuda-sm90"] and "is up to date" in capsys.readouterr().out
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;10.0+PTX")  # for another machine
    assert build.main() == 0 and built[2:] == ["cuda-sm80-sm100ptx"]


def test_emulated_kernels_need_a_folder_of_their_own(build, monkeypatch, capsys):
    monkeypatch.delenv("AMPMM_NATIVE_DIR")
    monkeypatch.setattr(sys, "argv", ["build.py", "--emulate-gpu"])
    with pytest.raises(SystemExit):
        build.main()
    assert "set AMPMM_NATIVE_DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    "variant, gpus, runs",
    [
        ("cuda-sm90", [(9, 0)], True),
        ("cuda-sm80", [(8, 6)], True),  # of the same generation
        ("cuda-sm86", [(8, 0)], False),
        ("cuda-sm80", [(9, 0)], False),
        ("cuda-sm80ptx", [(9, 0)], True),
        ("cuda-sm90a", [(9, 0)], True),
        ("cuda-sm90a", [(9, 1)], False),
        ("cuda-sm80-sm90", [(8, 0), (9, 0)], True),
        ("cuda-sm90", [(8, 0), (9, 0)], False),
        ("cuda-sm100", [(10, 0)], True),
    ],
)
def test_which_library_is_loaded(variant, gpus, runs, monkeypatch, tmp_path):
    """One with kernels for the GPUs, before a later one without, and never one with kernels for others."""
    loaded = []
    monkeypatch.setenv("AMPMM_NATIVE", "1")
    monkeypatch.setenv("AMPMM_NATIVE_DIR", str(tmp_path))
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    monkeypatch.setattr(native, "OPERATORS", ())
    monkeypatch.setattr(native, "gpus", lambda: gpus)
    with_kernels, without = (tmp_path / native.library_name(each) for each in (variant, "cpu"))
    with_kernels.touch()
    if not runs:
        assert "built for another GPU" in native.load.__wrapped__() and not loaded
    os.utime(with_kernels, (0, 0))
    without.touch()
    assert native.load.__wrapped__() == "" and loaded == [str(with_kernels if runs else without)]
    monkeypatch.setattr(native, "gpus", list)
    assert native.load.__wrapped__() == "" and loaded[-1] == str(without)
