"""For all tests: `tests/support` can be imported (pytest puts this folder on the path), and torch uses one thread."""

import torch

torch.set_num_threads(1)  # the systems of the tests are too small for more
