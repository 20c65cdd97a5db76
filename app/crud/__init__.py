"""The operations on the tables: they take mappings and return dataclasses, with one SQL statement each."""
