"""The operations on the tables: mappings in, dataclasses out, one SQL statement each."""
