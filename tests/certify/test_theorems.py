"""Theorems by certificates: the kernel proves each instance, and refuses or refutes the instance that breaks a hypothesis."""

import importlib

import pytest

# module -> what the kernel says of the instance, and of the broken one
SAID = {
    "t1": ("exactly one solution", "no solution in the box"),
    "t2": ("modulus >= rho", "F is not monotone: it decreases"),
    "t3": ("contraction 0.", "G pushes two points apart"),
    "t9": ("exactly one solution within", "was not proved"),
    "t11": ("unique on a ball of radius 0.02 at every guidance from 1 to 1.29", "F is not monotone: it decreases"),
    "t13": ("exactly one solution within 0.001", "Y + ||A|| slack + Z r <= r was not proved"),
    "t16": ("proved;", "the kernel refuses"),
}


@pytest.mark.parametrize("name", SAID)
def test_the_kernel_proves_the_instance_and_not_the_broken_one(name):
    module = importlib.import_module(f"proofs_checks.{name}")
    good = module.check(module.instance(), samples=20, seed=3)
    bad = module.check(module.broken_instance(), samples=20, seed=3)
    assert good.holds
    assert "ball arithmetic" in good.how
    assert SAID[name][0] in good.detail
    assert not bad.holds
    assert SAID[name][1] in bad.detail
    assert good.figures.get("proved", 1.0) == 1.0
    assert bad.figures.get("proved", 0.0) == 0.0


@pytest.mark.parametrize("name", [name for name in SAID if name != "t16"])  # whose modulus is the kernel's word too
def test_a_theorem_fails_where_the_kernel_refuses(name, monkeypatch):
    """The certificate is part of the claim: with a kernel that proves nothing the instance does not hold."""
    from proofs_checks import certificates as cert

    module = importlib.import_module(f"proofs_checks.{name}")
    monkeypatch.setattr(cert, "derive", lambda *args, **kwargs: cert.Derived(False, "refused"))
    found = module.check(module.instance(), samples=20, seed=3)
    assert not found.holds
    assert found.failed == ("claim",)
