import pytest

from pipeline.commands.serve import _settings
from pipeline.errors import UserError


@pytest.mark.parametrize("host", ["127.0.0.1.evil.example", "127.evil.example", "127.1", "localhost.", "0.0.0.0", "::"])  # noqa: S104
def test_an_address_that_may_not_be_loopback_needs_a_token(monkeypatch, host):
    monkeypatch.delenv("VAE_TOKEN", raising=False)
    with pytest.raises(UserError, match=f"host is {host}, which others can reach; expected VAE_TOKEN to be set"):
        _settings(host, 1)
    monkeypatch.setenv("VAE_TOKEN", "a secret")
    assert _settings(host, 1).token == "a secret"  # noqa: S105


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_token_and_is_known_by_its_name(monkeypatch, host):
    monkeypatch.delenv("VAE_TOKEN", raising=False)
    assert (f"[{host}]" if ":" in host else host) in _settings(host, 1).allowed_hosts
