from tests.support.device import device, log, rest  # noqa: F401
