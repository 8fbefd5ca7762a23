"""Searching for networks by their generator: graphs, networks drawn from them, and how they are drawn on paper."""
