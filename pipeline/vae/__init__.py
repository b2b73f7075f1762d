"""The mathematics: densities, likelihoods, priors, networks, the model and its bounds.

Everything that returns a log-density or a bound returns one value per example, shape [batch], in nats, with
no constant dropped. Nothing here reads a file, logs, or knows of a pipeline.
"""
