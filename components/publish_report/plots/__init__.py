"""The report's plots, drawn by matplotlib as SVG that takes its colours from the page: light, dark, print."""
