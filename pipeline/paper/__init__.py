"""The experiments of Kingma and Welling, arXiv 1312.6114, section 5: run, measured on the way, and drawn."""
