"""The values that the inside of the service works with: slotted dataclasses."""
