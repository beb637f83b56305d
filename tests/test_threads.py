"""How long torch's idle threads spin."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_the_users_own_setting_stays(given, expected):
    environment = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os; from ampmm.threads import spin_briefly; spin_briefly(); print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment | given, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == expected


def test_the_command_sets_it_before_torch_is_there():
    code = (
        "import sys, os, ampmm.cli.simulate as s; assert 'torch' not in sys.modules\n"
        "try: s.command(['urasil'], standalone_mode=False)\n"
        "except Exception: pass\n"
        "print(os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "10000"
