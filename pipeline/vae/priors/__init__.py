"""p(z): the standard normal, those that are learned, and the densities that are fitted to codes after training."""
