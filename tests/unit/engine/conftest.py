from tests.support.engine_fixtures import clock, fleet, root, seams  # noqa: F401
