import pytest


@pytest.fixture(scope="session", autouse=True)
def _quick_export(quick_export):
    """For each of them exports."""
