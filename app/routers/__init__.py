"""The routes: each translates, calls once, and translates back."""
