"""How good samples are: features of images, distances between sets of them, and how near samples are to training."""
