"""What is measured and drawn of a trained model: likelihood estimates, latents, what z says of x, samples, figures."""
