"""How long torch's threads wait awake for one another: its OpenMP reads that as torch is loaded, so this comes first.

By default a thread without work looks for some 300,000 times before it sleeps. Where another process wants the core,
each product then costs a slice of the scheduler's time; a hundredth of it still bridges what lies between two products.
No number changes by it, and what the environment says goes first.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
