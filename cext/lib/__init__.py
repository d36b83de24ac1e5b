"""Declarations of foreign headers; no logic."""
