"""What the patterns are worth and what a request costs: one folder a question, its last result beside it."""
