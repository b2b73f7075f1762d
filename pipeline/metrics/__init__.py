"""What is measured and drawn of a trained model: likelihood estimates, latent health, figures."""
