"""A resource of the tests' own, built as the service's resources are. The tests of the platform stand on it."""
