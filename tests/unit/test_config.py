"""The device's configuration file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fleet_agent import config
from fleet_agent.config import ConfigFile, DeviceConfig
from fleet_agent.errors import ConfigError, Kind

GOOD = {
    "api_url": "https://fleet.example/",
    "publishable_key": "sb_publishable_x",
    "git_url": "ssh://git@host/fleet.git",
    "allowed_signers": "/etc/fleet/allowed_signers",
}


def write(path: Path, **changes: Any) -> Path:
    merged = {**GOOD, **changes}
    path.write_text(json.dumps({key: value for key, value in merged.items() if value is not ...}))
    return path


def test_a_good_file_is_parsed_and_the_address_normalized(tmp_path: Path) -> None:
    device = config.load(write(tmp_path / "device.json"))
    assert device.api_url == "https://fleet.example"
    assert device.verify_signatures is True
    assert device.wake is True
    assert device.poll_interval_s is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"api_url": ...}, "`api_url` is missing"),
        ({"api_url": "fleet.example"}, "`api_url`: must be an http:// or https:// address"),
        ({"api_url": "https://u:p@fleet.example"}, "`api_url`: must be a plain address"),
        ({"poll_intervall_s": 60}, "`poll_intervall_s` is not a known key"),
        ({"poll_interval_s": 0}, "`poll_interval_s`: Input should be greater than or equal to 1"),
        ({"poll_interval_s": 604801}, "`poll_interval_s`: Input should be less than or equal to 604800"),
        ({"runtime": "podman"}, "`runtime`: Input should be 'auto', 'docker' or 'simulated'"),
        ({"labels": {"site": 7}}, "`labels.site`: Input should be a valid string"),
        ({"publishable_key": "None"}, "`publishable_key`: must be the project's publishable key"),
        ({"publishable_key": "eyJh.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.x"}, "begins with sb_publishable_"),
        ({"publishable_key": "sb_secret_abc"}, "`publishable_key`: must be the publishable key"),
        ({"allowed_signers": None}, "allowed_signers must name a file while verify_signatures is true"),
        ({"git_url": "--upload-pack=evil"}, "`git_url`: it must be a path or an address with https://"),
        ({"project": "Fleet 1"}, "`project`: String should match pattern"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_key(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path / "device.json", **changes))
    assert caught.value.kind == Kind.CONFIG_INVALID
    assert sentence in caught.value.message


def test_every_bad_key_is_named_at_once_and_no_value_is_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "device.json", publishable_key="sb_secret_hush", runtime="podman", extra="hush2")
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    for key in ("publishable_key", "runtime", "extra"):
        assert f"`{key}`" in caught.value.message
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("interval", [1, 604800])
def test_the_bounds_of_the_poll_interval_are_accepted(tmp_path: Path, interval: int) -> None:
    assert config.load(write(tmp_path / "d.json", poll_interval_s=interval)).poll_interval_s == interval


@pytest.mark.parametrize(
    ("text", "sentence"), [("{", "it is not JSON"), ("[]", "must contain one JSON object")]
)
def test_a_file_that_is_not_an_object_says_so(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "device.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        config.load(path)
    assert caught.value.kind == Kind.CONFIG_INVALID


def test_a_missing_file_has_its_own_kind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / "none.json")
    assert caught.value.kind == Kind.CONFIG_MISSING


def test_unsigned_commits_must_be_switched_on_in_the_open(tmp_path: Path) -> None:
    device = config.load(write(tmp_path / "d.json", allowed_signers=None, verify_signatures=False))
    assert device.allowed_signers is None


def test_a_relative_signers_file_is_beside_the_configuration(tmp_path: Path) -> None:
    device = config.load(write(tmp_path / "d.json", allowed_signers="signers"))
    assert device.allowed_signers == tmp_path / "signers"


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ConfigFile.open(write(tmp_path / "d.json"))
    monkeypatch.setattr(config, "load", lambda _path: pytest.fail("read again"))
    assert file.reload_if_changed() is False


def test_a_changed_file_takes_force_without_a_restart(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json")
    file = ConfigFile.open(path)
    write(path, poll_interval_s=60)
    assert file.reload_if_changed() is True
    assert file.current.poll_interval_s == 60
    assert file.reload_if_changed() is False


def test_a_bad_change_keeps_the_old_configuration_and_says_so_until_it_is_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", poll_interval_s=60)
    file = ConfigFile.open(path)
    write(path, poll_interval_s="often")
    assert file.reload_if_changed() is False
    assert file.current.poll_interval_s == 60
    assert file.config_error is not None
    assert "`poll_interval_s`" in file.config_error.message

    write(path, poll_interval_s=90)
    assert file.reload_if_changed() is True
    assert file.config_error is None


def test_a_removed_file_keeps_the_old_configuration(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json")
    file = ConfigFile.open(path)
    path.unlink()
    assert file.reload_if_changed() is False
    assert file.current == config.parse(json.dumps(GOOD), source=path)
    assert file.config_error is not None
    assert file.config_error.kind == Kind.CONFIG_MISSING


def test_a_replaced_file_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", poll_interval_s=60)
    file = ConfigFile.open(path)
    times = path.stat()
    fresh = write(tmp_path / "new.json", poll_interval_s=61)
    os.utime(fresh, ns=(times.st_atime_ns, times.st_mtime_ns))
    fresh.replace(path)
    assert file.reload_if_changed() is True
    assert file.current.poll_interval_s == 61


def test_every_key_says_what_it_is_for() -> None:
    assert all(field.description for field in DeviceConfig.model_fields.values())
