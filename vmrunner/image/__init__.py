"""Recipes become bootable images in a content-addressed store."""
