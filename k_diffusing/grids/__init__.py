"""Sigma grids: the named ones, the choice of one, and whether it can be."""
