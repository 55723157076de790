from tests.support.engine_fixtures import clock, dependencies, fleet, root  # noqa: F401
