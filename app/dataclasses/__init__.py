"""The values that the service works with inside: slotted dataclasses."""
