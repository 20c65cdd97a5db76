"""Measurements of a request's cost and of single patterns: one package a question, with its last result."""
